"""The worker that keeps a table equal to its topic: every record once, in commits of about a second.

Positions come from the table, never from Kafka's committed offsets.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from pydantic import Field

from tidemill.kafka.client import GATHERING
from tidemill.kafka.dense_reader import DenseReader
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import MirrorTable
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings, Settings
from tidemill.runtime.supervise import supervise
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


class Mirror:
    """Mirrors one topic until cancelled. Its check on the board has the table's name. `positions`: next offset of each partition."""

    def __init__(self, store: OfflineStore, table: MirrorTable, kafka: KafkaSettings, board: HealthBoard, flush: Flush) -> None:
        self.table = table
        self.positions: dict[int, int] = {}
        self.pulse = Pulse(f"mirror of {table.name}")
        self._store = store
        self._writer = store.topic_table(table)
        self._kafka = kafka
        self._board = board
        self._flush = flush
        self._rows = metrics.OFFLINE_ROWS.labels(table.name)
        self._seconds = metrics.OFFLINE_COMMIT_SECONDS.labels(table.name)
        self._lags = {p: metrics.OFFLINE_LAG.labels(table.name, str(p)) for p in range(table.partitions)}
        board.require(table.name)

    async def run(self) -> None:
        """Follow the topic. After an error it reports the reason and begins again from the positions in the table."""
        # Also after a FenceConflict: another writer has appended, and the table has the new positions.
        await supervise(self._follow, partial(self._board.down, self.table.name), [self.pulse])

    async def _follow(self) -> None:
        proofs = await asyncio.to_thread(self._read_positions)
        self.pulse.beat()
        reader = DenseReader(self._kafka, self._targets(self.positions), self._targets(proofs), **GATHERING)
        try:
            self._note_ends(await reader.start())
            self.pulse.beat()
            now = asyncio.get_running_loop().time
            flushed = checked = now()
            while True:
                records = await self._collect(reader, flushed + self._flush.seconds)
                flushed = now()
                if records:
                    await asyncio.to_thread(self._commit, records)
                self._board.up(self.table.name)  # not earlier: the first commit shows whether the disk is full
                self.pulse.beat()
                if flushed - checked > CHECK_SECONDS:
                    self._note_ends(await reader.ends())
                    checked = flushed
        finally:
            await reader.stop()

    def _targets(self, by_partition: dict[int, int]) -> dict[TopicPartition, int]:
        return {TopicPartition(self.table.topic, p): value for p, value in by_partition.items()}

    def _read_positions(self) -> dict[int, int]:
        """Reads the positions from the table; returns the checksum of each partition's last row."""
        self._writer.open()
        snapshot = self._store.snapshot(self.table.name)
        self.positions = snapshot.positions
        return snapshot.proofs_before(self.positions)

    async def _collect(self, reader: DenseReader, due: float) -> dict[int, list[Any]]:
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

    def _commit(self, read: dict[int, list[Any]]) -> None:
        start = time.perf_counter()
        ends = {p: records[-1].offset + 1 for p, records in read.items()}
        self._writer.append(self.table.rows_of(read), {(self.table.topic, p): (self.positions[p], end) for p, end in ends.items()})
        self.positions = self.positions | ends
        self._rows.inc(sum(map(len, read.values())))
        self._seconds.observe(time.perf_counter() - start)

    def _note_ends(self, ends: dict[TopicPartition, int]) -> None:
        for target, end in ends.items():
            self._lags[target.partition].set(max(end - self.positions[target.partition], 0))
