"""Comparing one partition of the online store with the offline rows, whole or by a sample, beside live traffic.

Entities are read in portions, each together with the fence in one command, and the fold follows the fence. A partition that is being rebuilt is
not served, and left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from tidemill.declarations import FeatureView
from tidemill.errors import CorruptState
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import LogEntry, PartitionFold, empty_fence
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.offline.history import PartitionLog
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.online.writer import OnlineWriter
from tidemill.proof.book import Breathe, PartitionBook, between, snapshot_reaching
from tidemill.proof.counterexample import Counterexample, differences, steps_of
from tidemill.redis.client import RedisClient

_PORTION = 500
_EXAMPLES = 20
_CHUNK_ROWS = 50_000


@dataclass(frozen=True)
class Mismatch:
    """One value that is not what the offline rows give. `entity` None: the fence itself. `stored`: the value as it was compared."""

    view: str
    partition: int
    entity: str | None
    fence: int
    what: str
    stored: bytes | None = None


@dataclass
class AuditReport:
    """How many values were compared (an entity of a view, or a fence), how many differ, the first of those, and how many partitions were
    left out because they are being rebuilt."""

    checked: int = 0
    mismatched: int = 0
    examples: list[Mismatch] = field(default_factory=list)
    left_out: int = 0

    def add(self, found: Mismatch | None) -> None:
        """Counts one comparison."""
        self.checked += 1
        if found is not None:
            self.mismatched += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(found)


class PartitionAudit:
    """Compares one partition, again and again if need be; between times it keeps what the rows say of the whole partition, and no states."""

    def __init__(
        self,
        project: str,
        view: FeatureView,
        partition: int,
        store: OfflineStore,
        link: RedisClient,
        wait_seconds: float,
        breathe: Breathe = lambda: None,
    ) -> None:
        self.view, self.partition = view, partition
        self._online = OnlineWriter(link, project)
        self._store, self._wait_seconds, self._breathe = store, wait_seconds, breathe
        self._kernel = ViewKernel(view)
        self._book = PartitionBook(view, partition)
        self._after = ""

    @property
    def kernel(self) -> ViewKernel:
        """Of the view."""
        return self._kernel

    def rows(self) -> int:
        """How many rows the offline store has of the partition."""
        snapshot = self.snapshot(0)
        return 0 if snapshot is None else snapshot.positions.get(self.partition, 0)

    def snapshot(self, end: int) -> Snapshot | None:
        """The offline rows, once they reach `end`. Raises OfflineUnavailable."""
        return snapshot_reaching(self._store, self.view, self.partition, end, self._wait_seconds)

    async def whole(self, report: AuditReport, entities: Collection[bytes] = ()) -> int:
        """Compares the fence, the entities given and those the rows have besides, by folding every row; returns how many rows these were."""
        follower = _Follower(self, self._breathe)
        seen: set[bytes] = set()
        waiting = sorted(entities)
        while True:
            portion, waiting = waiting[:_PORTION], waiting[_PORTION:]
            read = await self._read(portion, report)
            if read is None:
                return follower.rows
            fence, values = read
            expected = await asyncio.to_thread(follower.fence_at, fence.next)
            if fence != follower.compared:
                follower.compared = fence
                wrong = _differing(fence, expected)
                report.add(self._mismatch(None, fence.next, f"fence: {wrong}") if wrong else None)
            for entity in portion:
                report.add(self._compare(entity, fence.next, values.get(entity), follower.values.get(entity)))
            seen.update(portion)
            if not waiting:
                waiting = sorted(follower.values.keys() - seen)
                if not waiting:
                    return follower.rows

    async def sample(self, report: AuditReport, most_rows: int, also: Collection[str] = ()) -> int:
        """Compares the fence as far as that goes, and entities that have about `most_rows` rows together: those in `also`, and the next ones
        in order of their names, so that each has its turn. Returns how many rows were folded."""
        rows = 0
        read = await self._read([], report)
        if read is None:
            return rows
        drawn = await asyncio.to_thread(self._draw, read[0].next, most_rows)
        for names in _portions(list(dict.fromkeys([*also, *drawn]))):
            read = await self._read([name.encode() for name in names], report)
            if read is None:
                return rows
            fence, values = read
            entries, states = await asyncio.to_thread(self.alone, names, fence.next)
            rows += len(entries)
            wrong = self._book.differing(fence)
            report.add(self._mismatch(None, fence.next, f"fence: {wrong}") if wrong else None)
            for entity in (name.encode() for name in names):
                state = states.get(entity)
                report.add(self._compare(entity, fence.next, values.get(entity), None if state is None else self._kernel.encode(state)))
            await asyncio.to_thread(self._breathe)
        return rows

    def _draw(self, end: int, most_rows: int) -> list[str]:
        self._store_at(end)
        drawn = self._book.draw(self._after, most_rows)
        self._after = drawn[-1] if drawn else ""
        return drawn

    def alone(self, names: Collection[str], end: int) -> tuple[list[LogEntry], dict[bytes, EntityState]]:
        """The rows of some entities below `end`, and what they alone fold to."""
        snapshot = self._store_at(end)
        if snapshot is None:
            return [], {}
        entries, states = self._book.entries(snapshot, names, end), dict[bytes, EntityState]()
        PartitionFold.start(self._kernel).advance([entry for entry in entries if entry.offset not in self._book.resent], states)
        return entries, states

    def _store_at(self, end: int) -> Snapshot | None:
        """The offline rows, and the book brought to `end`."""
        snapshot = self.snapshot(end)
        if snapshot is not None:
            self._book.advance(snapshot, end, self._breathe)
        return snapshot

    def counterexample(self, found: Mismatch, last: int | None = None) -> Counterexample:
        """The last rows (None: all) of a mismatch's entity one by one, and what differs. `found.entity` must be one."""
        assert found.entity is not None
        key = found.entity.encode()
        entries, states = self.alone([found.entity], found.fence)
        expected = self._kernel.encode(states[key]) if key in states else None
        steps = steps_of(self._kernel, entries, self._book.resent, found.stored, last)
        return Counterexample(
            found.view, found.partition, found.entity, found.fence, len(entries), steps, differences(self._kernel, found.stored, expected)
        )

    async def _read(self, entities: list[bytes], report: AuditReport) -> tuple[Fence, dict[bytes, bytes]] | None:
        """A portion with its fence; None when there is nothing to compare it with, which is counted."""
        stored, values = await self._online.load(self.view.log, self.partition, entities)
        try:
            fence = None if stored is None else Fence.decode(stored)
        except msgspec.DecodeError:
            report.add(self._mismatch(None, 0, f"fence: {stored!r:.100} is not a fence"))
            return None
        if fence is None or fence.builder:
            report.left_out += 1
            return None
        if fence.definition != self._kernel.definition:
            report.add(self._mismatch(None, fence.next, f"fence: definition is {fence.definition!r}, not {self._kernel.definition!r}"))
            return None
        return fence, values

    def _compare(self, entity: bytes, fence: int, value: bytes | None, expected: bytes | None) -> Mismatch | None:
        if value == expected:
            return None
        return self._mismatch(entity.decode(errors="replace"), fence, self._explain(value, expected), value)

    def _mismatch(self, entity: str | None, fence: int, what: str, stored: bytes | None = None) -> Mismatch:
        return Mismatch(self.view.name, self.partition, entity, fence, what, stored)

    def _explain(self, online: bytes | None, offline: bytes | None) -> str:
        if online is None or offline is None:
            return "online store has no value" if online is None else "online store has a value, offline rows give none"
        try:
            state = self._kernel.decode(online)
        except CorruptState as error:
            return str(error)
        newest = max(state.newest, self._kernel.decode(offline).newest)
        pairs = zip(self.view.served, self._kernel.read(online, newest).values, self._kernel.read(offline, newest).values, strict=True)
        differing = [f"{feature.name} is {a!r} online, {b!r} offline" for feature, a, b in pairs if repr(a) != repr(b)]
        return "; ".join(differing[:5]) or "the same features from different tiles"


class _Follower:
    """The fold of all rows of a partition, which follows the fence. `values`: what the store should have of each entity, which takes a
    fraction of the memory of states taken apart. `compared`: the fence that was compared last."""

    def __init__(self, audit: PartitionAudit, breathe: Breathe) -> None:
        self._audit, self._breathe = audit, breathe
        self._restart()

    def _restart(self) -> None:
        kernel = self._audit.kernel
        self._fold, self.values = PartitionFold(kernel, empty_fence(kernel), self._find), dict[bytes, bytes]()
        self.compared: Fence | None = None

    def _find(self, entity: bytes) -> EntityState | None:
        value = self.values.get(entity)
        return None if value is None else self._audit.kernel.reopen(value)

    @property
    def rows(self) -> int:
        """How many rows are folded."""
        return self._fold.fence.next

    def fence_at(self, offset: int) -> Fence:
        """Folds the rows below an offset and returns the fence that belongs there."""
        if offset < self._fold.fence.next:  # the online store lost data and began again
            self._restart()
        snapshot = self._audit.snapshot(offset)
        while snapshot is not None and (start := self._fold.fence.next) < offset:
            end = min(start + _CHUNK_ROWS, offset)
            table = snapshot.scan(filters=between(self._audit.partition, start, end))
            states = dict[bytes, EntityState]()
            self._fold.advance(list(PartitionLog(self._audit.view, table).entries()), states)
            self.values |= {entity: self._audit.kernel.encode(state) for entity, state in states.items()}
            self._breathe()
        return self._fold.fence


def _portions(names: list[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while portion := list(islice(rest, _PORTION)):
        yield portion


def _differing(fence: Fence, expected: Fence) -> str:
    """What a fence says otherwise than the rows; what it says of rebuilds is no matter of theirs."""
    names = [name for name in fence.__struct_fields__ if name not in ("until", "built")]
    pairs = [(name, getattr(fence, name), getattr(expected, name)) for name in names]
    return "; ".join(f"{name} is {found!r}, the rows give {wanted!r}" for name, found, wanted in pairs if found != wanted)
