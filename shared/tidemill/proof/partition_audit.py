"""Compares one partition of the online store with the offline rows, whole or by a sample, under live traffic.

Entities are read in portions. One command reads a portion together with the fence, and the rows are folded up to that fence. A partition
that is being rebuilt is not served, so it is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from tidemill.chunks import chunks
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
from tidemill.redis.protocol import RedisClient

_PORTION = 500
_EXAMPLES = 20
_CHUNK_ROWS = 50_000


@dataclass(frozen=True)
class Mismatch:
    """One value that differs from the fold of the offline rows. `entity`: None for the fence itself; `stored`: the compared value."""

    view: str
    partition: int
    entity: str | None
    fence: int
    what: str
    stored: bytes | None = None


@dataclass
class AuditReport:
    """How many values were compared (an entity of a view, or a fence), how many differ, the first that differ, and how many partitions were
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
    """Compares one partition, as often as it is asked. Between two comparisons it keeps the partition's book, and no states."""

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
        """The kernel of the view."""
        return self._kernel

    @property
    def since_ms(self) -> int:
        """Since when the view is fed, from the rows read so far (see `Fence.since`)."""
        return self._book.since_ms

    def rows(self) -> int:
        """How many rows the offline store has of the partition."""
        snapshot = self.snapshot(0)
        return 0 if snapshot is None else snapshot.positions.get(self.partition, 0)

    def snapshot(self, end: int) -> Snapshot | None:
        """The offline rows, once they reach `end`. Raises OfflineUnavailable."""
        return snapshot_reaching(self._store, self.view, self.partition, end, self._wait_seconds)

    async def whole(self, report: AuditReport, entities: Collection[bytes] = ()) -> int:
        """Folds every row, and compares the fence, the given entities and all other entities of the rows. Returns the number of rows."""
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
        """Compares the entities in `also`, and the next ones in order of their names that have about `most_rows` rows together; so each
        entity has its turn. Compares the fence as far as this needs no fold of all rows. Returns the number of rows folded."""
        rows = 0
        read = await self._read([], report)
        if read is None:
            return rows
        drawn = await asyncio.to_thread(self._draw, read[0].next, most_rows)
        for names in chunks(dict.fromkeys([*also, *drawn]), _PORTION):
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
        """The rows of some entities below `end`, and the states that these rows fold to."""
        snapshot = self._store_at(end)
        if snapshot is None:
            return [], {}
        entries, states = self._book.entries(snapshot, names, end), dict[bytes, EntityState]()
        PartitionFold.start(self._kernel).advance(entries, states)
        return entries, states

    def _store_at(self, end: int) -> Snapshot | None:
        """Brings the book to `end`, and returns the offline rows."""
        snapshot = self.snapshot(end)
        if snapshot is not None:
            self._book.advance(snapshot, end, self._breathe)
        return snapshot

    def counterexample(self, found: Mismatch, last: int | None = None) -> Counterexample:
        """The last rows (None: all) of a mismatch's entity one by one, and what differs. `found` must name an entity."""
        assert found.entity is not None
        key = found.entity.encode()
        entries, states = self.alone([found.entity], found.fence)
        expected = self._kernel.encode(states[key]) if key in states else None
        steps = steps_of(self._kernel, entries, found.stored, last)
        return Counterexample(
            found.view, found.partition, found.entity, found.fence, len(entries), steps, differences(self._kernel, found.stored, expected)
        )

    async def _read(self, entities: list[bytes], report: AuditReport) -> tuple[Fence, dict[bytes, bytes]] | None:
        """Reads a portion with its fence. None: it cannot be compared, and the report says why."""
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
        here, there = self._kernel.read(online, newest), self._kernel.read(offline, newest)
        pairs = [(feature.name, here.value(i), there.value(i)) for i, feature in enumerate(self.view.served)]
        differing = [f"{name} is {a!r} online, {b!r} offline" for name, a, b in pairs if repr(a) != repr(b)]
        return "; ".join(differing[:5]) or "the same features from different tiles"


class _Follower:
    """The fold of all rows of a partition up to the fence. `values`: the packed value that the store should have of each entity; it takes a
    fraction of the memory of a state. `compared`: the fence that was compared last."""

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


def _differing(fence: Fence, expected: Fence) -> str:
    """Where a fence differs from the rows. Its fields about rebuilds are left out: the rows do not determine them."""
    names = [name for name in fence.__struct_fields__ if name not in ("until", "built")]
    pairs = [(name, getattr(fence, name), getattr(expected, name)) for name in names]
    return "; ".join(f"{name} is {found!r}, the rows give {wanted!r}" for name, found, wanted in pairs if found != wanted)
