"""The audit: for every view and partition, state(Redis) = fold(offline rows below Redis' fence), byte for byte.

It runs beside live traffic: entities are read in portions, each together with the fence in one command, and the fold follows the fence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import pyarrow.compute as pc

from tidemill.declarations import FeatureView
from tidemill.errors import CorruptState, TidemillError, UnknownTable, UnknownView
from tidemill.fences import Fence
from tidemill.fold import PartitionFold
from tidemill.kernel import EntityState, ViewKernel
from tidemill.offline_store import OfflineStore
from tidemill.project import Project
from tidemill.proof.history import PartitionLog
from tidemill.redis_link import RedisLink
from tidemill.topics import fence_key, state_key, view_folder

_PORTION = 500
_EXAMPLES = 20
_RETRY_SECONDS = 0.2


@dataclass(frozen=True)
class Mismatch:
    """One value that is not what the offline rows give. `entity` None: the fence itself."""

    view: str
    partition: int
    entity: str | None
    fence: int
    what: str


@dataclass
class AuditReport:
    """How many values were compared (an entity of a view, or a fence), how many differ, and the first of those."""

    checked: int = 0
    mismatched: int = 0
    examples: list[Mismatch] = field(default_factory=list)

    def add(self, found: Mismatch | None) -> None:
        """Counts one comparison."""
        self.checked += 1
        if found is not None:
            self.mismatched += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(found)


async def audit(
    project: Project,
    store: OfflineStore,
    link: RedisLink,
    views: Sequence[str] = (),
    note: Callable[[str], None] = lambda _: None,
    wait_seconds: float = 60,
) -> AuditReport:
    """Compares every entity of the views (all, when none is named). `note` hears of progress.

    Raises UnknownView, and TidemillError when the offline store does not reach the online fence within `wait_seconds`.
    """
    for name in views:
        if name not in project.views:
            raise UnknownView(name, list(project.views))
    report = AuditReport()
    keys = await _keys_by_partition(link, project)
    for view in [project.views[name] for name in views or project.views]:
        note(f"{view.name}: {sum(len(keys.get((view.name, p), ())) for p in range(view.partitions)):,} entities")
        for partition in range(view.partitions):
            auditor = _PartitionAudit(project.name, view, partition, store, link, wait_seconds)
            await auditor.run(keys.get((view.name, partition), set()), report)
    return report


async def _keys_by_partition(link: RedisLink, project: Project) -> dict[tuple[str, int], set[bytes]]:
    """Entities in the online store by view and partition, found by one walk over its keys."""
    found: dict[tuple[str, int], set[bytes]] = {}
    places = {
        state_key(project.name, view.log, partition, b""): (view.name, partition)
        for view in project.views.values()
        for partition in range(view.partitions)
    }
    async for key in _scan(link, b"{%s.*}e:*" % project.name.encode()):
        prefix, _, entity = key.partition(b"}e:")
        place = places.get(prefix + b"}e:")
        if place is not None:
            found.setdefault(place, set()).add(entity)
    return found


async def _scan(link: RedisLink, pattern: bytes) -> AsyncIterator[bytes]:
    cursor = b"0"
    while True:
        cursor, keys = await link.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"2000")
        for key in keys:
            yield key
        if cursor == b"0":
            return


class _PartitionAudit:
    """One partition: a fold of its offline rows that follows the fence as portions of entities are compared."""

    def __init__(self, project: str, view: FeatureView, partition: int, store: OfflineStore, link: RedisLink, wait_seconds: float) -> None:
        self.view, self.partition = view, partition
        self._project, self._store, self._link, self._wait_seconds = project, store, link, wait_seconds
        self._kernel = ViewKernel(view)
        self._fence_key = fence_key(project, view.log, partition)
        self._compared: Fence | None = None
        self._restart()

    async def run(self, entities: set[bytes], report: AuditReport) -> None:
        """Compares the fence, the entities given and those the rows have besides."""
        seen: set[bytes] = set()
        waiting = sorted(entities)
        while True:
            portion, waiting = waiting[:_PORTION], waiting[_PORTION:]
            for entity, value in (await self._read(portion, report)).items():
                report.add(self._compare(entity, value))
            seen.update(portion)
            if not waiting:
                waiting = sorted(self._states.keys() - seen)
                if not waiting:
                    return

    async def _read(self, entities: list[bytes], report: AuditReport) -> dict[bytes, bytes | None]:
        """Reads a portion with its fence, folds the rows up to that fence, and compares the fence itself."""
        keys = [state_key(self._project, self.view.log, self.partition, entity) for entity in entities]
        encoded, *values = await self._link.call(b"MGET", self._fence_key, *keys)
        try:
            fence = Fence.decode(encoded) if encoded is not None else None
        except msgspec.DecodeError:
            report.add(self._mismatch(None, f"fence: {encoded!r:.100} is not a fence"))
            return {}
        await asyncio.to_thread(self._fold_to, 0 if fence is None else fence.next)
        if fence is not None and fence != self._compared:
            expected = self._fold.fence
            self._compared = fence
            report.add(None if fence == expected else self._mismatch(None, f"fence: {_differing(fence, expected)}"))
        return dict(zip(entities, values, strict=True))

    def _restart(self) -> None:
        self._log: PartitionLog | None = None
        self._rows = 0
        self._fold, self._states = PartitionFold.start(self._kernel), dict[bytes, EntityState]()
        self._compared = None

    def _fold_to(self, offset: int) -> None:
        if offset < self._fold.fence.next:  # the online store lost data and began again
            self._restart()
        if offset == self._fold.fence.next:
            return
        log = self._log_up_to(offset)
        rows = log.rows_below(offset)
        self._fold.advance(list(log.entries(self._rows, rows)), self._states)
        self._rows = rows

    def _log_up_to(self, offset: int) -> PartitionLog:
        """The offline rows, read again until they reach an offset."""
        deadline = time.monotonic() + self._wait_seconds
        while self._log is None or self._log.end < offset:
            try:
                table = self._store.scan(view_folder(self.view.log), filters=pc.field("partition") == self.partition)
                self._log = PartitionLog(self.view, table)
            except UnknownTable:
                self._log = None
            end = 0 if self._log is None else self._log.end
            if end < offset:
                if time.monotonic() > deadline:
                    raise TidemillError(
                        f"view {self.view.name!r}, partition {self.partition}: the offline store ends at {end}, the online fence is {offset}",
                        mend="see that the offline writer runs (tidemill status) and try again",
                    )
                time.sleep(_RETRY_SECONDS)
        return self._log

    def _compare(self, entity: bytes, value: bytes | None) -> Mismatch | None:
        state = self._states.get(entity)
        expected = None if state is None else self._kernel.encode(state)
        if value == expected:
            return None
        return self._mismatch(entity.decode(errors="replace"), self._explain(value, expected))

    def _mismatch(self, entity: str | None, what: str) -> Mismatch:
        return Mismatch(self.view.name, self.partition, entity, self._fold.fence.next, what)

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


def _differing(fence: Fence, expected: Fence) -> str:
    pairs = [(name, getattr(fence, name), getattr(expected, name)) for name in fence.__struct_fields__]
    return "; ".join(f"{name} is {found!r}, the rows give {wanted!r}" for name, found, wanted in pairs if found != wanted)
