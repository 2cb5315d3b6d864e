"""Makes partitions of the online store anew from the offline store, while services run.

1. It claims the partition.
2. It folds the offline rows up to their end, or up to the offset that feature computation had reached, and writes the values.
3. It sets the fence of the last row. Feature computation goes on from there with the topic, which need not hold older records.
4. Until feature computation has passed the end that the topic had at the claim, services say "rebuilding".

Memory is bounded. Rows are read in slices. Above a limit, entities are written and forgotten, and read again when a later row needs them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
import pyarrow.compute as pc
from aiokafka import TopicPartition

from tidemill.chunks import chunks
from tidemill.clock import Deadline
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.errors import StoreError, TidemillError, TornTable, Unavailable
from tidemill.kafka.topics import OffsetRange, offset_ranges
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import LogEntry, PartitionFold, empty_fence
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.offline.history import PartitionLog
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.online.claim import LEASE_MS, Claim
from tidemill.online.writer import OnlineWriter
from tidemill.redis.protocol import RedisClient
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import view_topic

SLICE_ROWS = 50_000
MOST_ENTITIES = 100_000
_CHUNK = 500  # values in one script
_FIRST_PAUSE_SECONDS = 0.2


class Rebuilt(NamedTuple):
    """The result of a partition: rows folded, values written (a value may be written more than once), and the end of the topic."""

    partition: int
    rows: int
    values: int
    topic_end: int


Progress = Callable[[int, int, int], None]
"""Called with the partition, the rows folded so far, and all rows."""


class Rebuild:
    """Makes partitions of one view anew."""

    def __init__(self, project: Project, view: FeatureView, store: OfflineStore, link: RedisClient, kafka: KafkaSettings) -> None:
        self._view, self._store, self._kafka = view, store, kafka
        self._topic = view_topic(project.name, view.log)
        self._kernel = ViewKernel(view)
        self._link, self._project = link, project.name

    async def run(self, partitions: Sequence[int], progress: Progress = lambda *_: None) -> list[Rebuilt]:
        """Rebuilds one partition after the other; the others are served meanwhile.

        Raises TidemillError when offline store and topic together lack records of a partition, or when somebody else rebuilds it; that
        partition is not changed then. After any interruption it can be run again.
        """
        unknown = [partition for partition in partitions if not 0 <= partition < self._view.partitions]
        if unknown:
            raise TidemillError(
                f"view {self._view.name!r} has no partition {unknown[0]}", mend=f"its partitions are 0 to {self._view.partitions - 1}"
            )
        return [await self._partition(partition, progress) for partition in partitions]

    async def _partition(self, partition: int, progress: Progress) -> Rebuilt:
        snapshot = await asyncio.to_thread(self._snapshot)
        written, topic = 0 if snapshot is None else snapshot.positions.get(partition, 0), await self._topic_holds(partition)
        self._check(partition, written, topic)
        if snapshot is not None:
            await asyncio.to_thread(self._check_columns, snapshot, partition)
        applied = await self._applied(partition)
        rows = written if applied is None else min(written, max(applied, topic.begin))
        claim = Claim(self._link, self._project, self._view.log, partition, empty_fence(self._kernel, until=rows))
        async with self._claimed(partition, claim):
            end = (await self._topic_holds(partition)).end  # nothing newer can have been served before the claim
            await claim.empty()
            fold, values = await self._fold(partition, claim, snapshot, rows, progress)
            await claim.finish(msgspec.structs.replace(fold.fence, until=end if end > rows else 0))
        return Rebuilt(partition, rows, values, end)

    async def _applied(self, partition: int) -> int | None:
        """The offset that feature computation had reached; None: not known. If possible it goes on from there: it may have to refuse
        records that it has not folded yet, and nobody else writes dead letters."""
        stored, _ = await OnlineWriter(self._link, self._project).load(self._view.log, partition, [])
        try:
            fence = None if stored is None else Fence.decode(stored)
        except msgspec.DecodeError:
            return None
        return None if fence is None or fence.builder else max(fence.next, fence.until)

    def _snapshot(self) -> Snapshot | None:
        return self._store.find(view_folder(self._view.log))

    async def _topic_holds(self, partition: int) -> OffsetRange:
        found = await offset_ranges(self._kafka, self._topic)
        return found.get(TopicPartition(self._topic, partition), OffsetRange(0, 0))

    def _check(self, partition: int, rows: int, topic: OffsetRange) -> None:
        where = f"view {self._view.name!r} partition {partition}"
        if topic.begin > rows:
            raise TidemillError(
                f"{where}: the offline store ends at {rows} and the topic begins at {topic.begin}: neither has the records between",
                mend="if the offline writer lags, let it catch up; else restore the topic's records, or the offline store from a backup",
            )
        if topic.end < rows:
            raise TidemillError(
                f"{where}: the topic ends at {topic.end}, but the offline store has records up to {rows}",
                mend="the topic was truncated or made anew: restore it, or move the view's table away and rebuild from what the topic has",
            )

    def _check_columns(self, snapshot: Snapshot, partition: int) -> None:
        """Raises AbsentColumns, before anything is changed, when the rows lack a column that the view folds now."""
        wanted = {"offset", "time", *(f"v_{name}" for name in self._view.value_fields)}
        PartitionLog(self._view, snapshot.scan([name for name in snapshot.columns if name in wanted], pc.field("partition") == partition))

    @contextlib.asynccontextmanager
    async def _claimed(self, partition: int, claim: Claim) -> AsyncIterator[None]:
        """Holds the claim. An error releases it; when the process is killed, it expires."""
        deadline = Deadline(LEASE_MS / 1000 + 1)
        while not await claim.take():
            if deadline.expired:
                raise TidemillError(
                    f"view {self._view.name!r} partition {partition} is being rebuilt by somebody else", mend="wait until that is done"
                )
            await asyncio.sleep(_FIRST_PAUSE_SECONDS)
        renewing = asyncio.create_task(_renew(claim))
        try:
            yield
        except BaseException:
            with contextlib.suppress(Unavailable, StoreError):
                await claim.release()
            raise
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)  # an error there makes the next step fail too

    async def _fold(
        self, partition: int, claim: Claim, snapshot: Snapshot | None, rows: int, progress: Progress
    ) -> tuple[PartitionFold, int]:
        """Folds all rows and writes every entity's value. Returns the fold, and how many values were written."""
        fold, states = PartitionFold.start(self._kernel), dict[bytes, EntityState]()
        written = 0
        for start in range(0, rows, SLICE_ROWS):
            assert snapshot is not None
            progress(partition, start, rows)
            entries = await asyncio.to_thread(self._slice, snapshot, partition, start, min(start + SLICE_ROWS, rows))
            if written:
                touched = {entry.key for entry in entries if entry.record is not None}
                await self._load(claim, touched - states.keys(), states)
            await asyncio.to_thread(fold.advance, entries, states)
            if len(states) > MOST_ENTITIES:
                written += await self._write(claim, states)
                states.clear()
        written += await self._write(claim, states)
        progress(partition, rows, rows)
        return fold, written

    def _slice(self, snapshot: Snapshot, partition: int, start: int, end: int) -> list[LogEntry]:
        """The rows from offset `start` to `end`. Raises TornTable when some are missing."""
        offset = pc.field("offset")
        table = snapshot.scan(filters=(pc.field("partition") == partition) & (offset >= start) & (offset < end))
        entries = list(PartitionLog(self._view, table).entries())
        if [entry.offset for entry in entries] != list(range(start, end)):
            raise TornTable(
                f"table {snapshot.name!r} has {len(entries)} rows of partition {partition} from offset {start} to {end}",
                mend="move the table away: the offline writer makes it again from Kafka",
            )
        return entries

    async def _load(self, claim: Claim, entities: Iterable[bytes], states: dict[bytes, EntityState]) -> None:
        for chunk in chunks(sorted(entities), _CHUNK):
            states |= {entity: self._kernel.decode(value) for entity, value in (await claim.load(chunk)).items()}

    async def _write(self, claim: Claim, states: dict[bytes, EntityState]) -> int:
        for chunk in chunks(states, _CHUNK):
            await claim.write({entity: self._kernel.encode(states[entity]) for entity in chunk})
        return len(states)


async def _renew(claim: Claim) -> None:
    while True:
        await asyncio.sleep(LEASE_MS / 4000)
        await claim.renew()
