"""The worker that keeps a table in step with its topic: every record once, in commits of about a second.

Positions come from the table, never from Kafka's committed offsets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from aiokafka import TopicPartition
from pydantic import Field

from tidemill.kafka.client import gathering
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kafka.reader import Reader
from tidemill.offline.store import OfflineStore, TopicTable
from tidemill.offline.tables import MirrorTable
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings, Settings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.threads import to_its_end
from tidemill.runtime.watchdog import Pulse

IDLE_SECONDS = 1.0  # without a record a turn ends after this time, with nothing to commit
CHECK_SECONDS = 5.0


class Flush(NamedTuple):
    """When a commit is due: `seconds` after the last one, or earlier, after reading this many rows or bytes."""

    seconds: float = 1.0
    rows: int = 100_000
    size_bytes: int = 64 << 20


class FlushSettings(Settings):
    """When a commit is due."""

    seconds: float = Field(
        1.0, validation_alias="TIDEMILL_FLUSH_SECONDS", gt=0, le=60, description="seconds between two commits of a table"
    )
    rows: int = Field(100_000, validation_alias="TIDEMILL_FLUSH_ROWS", ge=1, description="the most rows of a commit")

    def flush(self) -> Flush:
        """The same as a Flush."""
        return Flush(self.seconds, self.rows)


class Followed(Protocol):
    """What a mirror knows of its table: its name, the topic that it follows, and how records become rows."""

    @property
    def name(self) -> str:
        """Its folder below the root of the offline store."""

    @property
    def topic(self) -> str:
        """The topic."""

    @property
    def partitions(self) -> int:
        """How many partitions the topic should have."""

    def rows_of(self, read: Mapping[int, Sequence[Any]]) -> pa.Table:
        """The rows of consecutive records of several partitions."""


class Follower:
    """Keeps a table in step with its topic until cancelled; a commit that has begun then is made. Its check on the board has the table's
    name. `positions`: next offset of each partition. A subclass says how to open table and topic, `_open`."""

    def __init__(self, store: OfflineStore, table: Followed, kafka: KafkaSettings, board: HealthBoard, flush: Flush) -> None:
        self.table = table
        self.positions: dict[int, int] = {}
        self.pulse = Pulse(f"mirror of {table.name}")
        self._store = store
        self._writer: TopicTable
        self._kafka = kafka
        self._board = board
        self._flush = flush
        self._rows = metrics.OFFLINE_ROWS.labels(table.name)
        self._seconds = metrics.OFFLINE_COMMIT_SECONDS.labels(table.name)
        for partition in range(table.partitions):
            metrics.OFFLINE_LAG.labels(table.name, str(partition))
        board.require(table.name)

    async def run(self) -> None:
        """Follow the topic. After an error it reports the reason and begins again from the positions in the table."""
        # Also after a FenceConflict: another writer has appended, and the table has the new positions.
        try:
            while True:
                await supervise(self._follow, partial(self._board.down, self.table.name), [self.pulse])
        finally:
            for partition in range(self.table.partitions):
                metrics.OFFLINE_LAG.remove(self.table.name, str(partition))

    async def _open(self) -> Reader:
        """Opens the table, reads its positions, and makes a reader that begins there."""
        raise NotImplementedError

    def _outgrown(self, reader: Reader) -> bool:
        """Whether the topic must be opened again, because it has other partitions than the reader reads."""
        return False

    def _maintain(self) -> None:
        """What the table needs from time to time. Called in a thread, after each look at the ends of the topic."""
        if self._writer.untidy:
            self._writer.tidy()

    async def _follow(self) -> None:
        """Follows the topic until it is outgrown."""
        reader = await self._open()
        try:
            self.pulse.beat()
            ends = await reader.start()
            self._note_ends(ends)
            if not any(ends.values()):
                self._board.up(self.table.name)  # nothing waits to be written
            self.pulse.beat()
            now = asyncio.get_running_loop().time
            flushed = checked = now()
            while True:
                records = await self._collect(reader, flushed + self._flush.seconds)
                flushed = now()
                ends = {target.partition: offset for target, offset in reader.next.items()}
                if ends != self.positions:
                    await to_its_end(self._commit, records, ends)
                self._board.up(self.table.name)  # not earlier: the first commit shows whether the disk is full
                self.pulse.beat()
                if flushed - checked > CHECK_SECONDS:
                    if self._outgrown(reader):
                        return
                    self._note_ends(await reader.ends())
                    await to_its_end(self._maintain)
                    checked = flushed
        finally:
            await reader.stop()

    async def _collect(self, reader: Reader, due: float) -> dict[int, list[Any]]:
        """Reads, by partition, until a commit is `due` (seconds of the loop's clock) or large enough; empty after an idle second."""
        read: dict[int, list[Any]] = {}
        rows = size_bytes = 0
        while rows < self._flush.rows and size_bytes < self._flush.size_bytes:
            left_seconds = due - asyncio.get_running_loop().time()
            if left_seconds <= 0 and read:
                break
            fetched = await reader.fetch(left_seconds if read else max(left_seconds, IDLE_SECONDS), self._flush.rows)
            if not fetched and not read:
                break
            for target, records in fetched.items():
                read.setdefault(target.partition, []).extend(records)
                rows += len(records)
                size_bytes += sum(record.serialized_value_size for record in records)
        return read

    def _commit(self, read: dict[int, list[Any]], ends: dict[int, int]) -> None:
        start = time.perf_counter()
        rows = self.table.rows_of(read)
        moves = {(self.table.topic, p): (self.positions[p], end) for p, end in ends.items() if end != self.positions[p]}
        self._writer.append(rows, moves)
        self.positions = ends
        self._rows.inc(len(rows))
        self._seconds.observe(time.perf_counter() - start)

    def _note_ends(self, ends: dict[TopicPartition, int]) -> None:
        for target, end in ends.items():
            lag = metrics.OFFLINE_LAG.labels(self.table.name, str(target.partition))
            lag.set(max(end - self.positions[target.partition], 0))


class Mirror(Follower):
    """Mirrors a topic of ours: every record is a row."""

    def __init__(self, store: OfflineStore, table: MirrorTable, kafka: KafkaSettings, board: HealthBoard, flush: Flush) -> None:
        super().__init__(store, table, kafka, board, flush)
        self._writer = store.topic_table(table)

    async def _open(self) -> Reader:
        proofs = await to_its_end(self._read_positions)
        return DenseReader(self._kafka, self._targets(self.positions), self._targets(proofs), **gathering(self._flush.seconds))

    def _targets(self, by_partition: dict[int, int]) -> dict[TopicPartition, int]:
        return {TopicPartition(self.table.topic, p): value for p, value in by_partition.items()}

    def _read_positions(self) -> dict[int, int]:
        """Reads the positions from the table; returns the checksum of each partition's last row."""
        self._writer.open()
        snapshot = self._store.snapshot(self.table.name)
        self.positions = snapshot.positions
        return snapshot.proofs_before(self.positions)
