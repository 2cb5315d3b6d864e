"""The worker that keeps a table equal to its topic: every record once, in commits of about a second.

Positions come from the table, never from Kafka's committed offsets. Before it goes on, it reads the last record it wrote once more and compares
its checksum, so that a topic that was truncated or made anew is refused instead of mixed with what is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tidemill import metrics
from tidemill.errors import FenceConflict, KafkaUnavailable, TidemillError, TopicRecreated
from tidemill.fences import proof_of
from tidemill.health import HealthBoard
from tidemill.kafka import consumer
from tidemill.logs import get_logger
from tidemill.offline.tables import MirrorTable
from tidemill.offline_store import OfflineStore
from tidemill.settings import KafkaSettings

log = get_logger(__name__)

RETRY_SECONDS = 1.0
CHECK_SECONDS = 5.0
KAFKA_SECONDS = 15.0


class Flush(NamedTuple):
    """When a commit is due: `seconds` after the last one, or as soon as this much has been read."""

    seconds: float = 1.0
    rows: int = 100_000
    size_bytes: int = 64 << 20


class _Read(NamedTuple):
    """Records fetched and not yet committed, by partition."""

    records: dict[int, list[Any]]

    def add(self, partition: int, records: Sequence[Any]) -> int:
        """Take records and return their size in bytes."""
        self.records.setdefault(partition, []).extend(records)
        return sum(record.serialized_value_size for record in records)

    @property
    def rows(self) -> int:
        return sum(map(len, self.records.values()))


class Mirror:
    """Mirrors one topic until cancelled; reports on the board under the table's name. `positions`: next offset of each partition in the table."""

    def __init__(self, store: OfflineStore, table: MirrorTable, kafka: KafkaSettings, board: HealthBoard, flush: Flush) -> None:
        self.table = table
        self.positions: dict[int, int] = {}
        self._store = store
        self._log = store.log_table(table)
        self._kafka = kafka
        self._board = board
        self._flush = flush
        self._next: dict[int, int] = {}
        self._proofs: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._checked = 0.0
        self._rows = metrics.OFFLINE_ROWS.labels(table.name)
        self._seconds = metrics.OFFLINE_COMMIT_SECONDS.labels(table.name)
        self._lags = {p: metrics.OFFLINE_LAG.labels(table.name, str(p)) for p in range(table.partitions)}
        board.require(table.name)

    async def run(self) -> None:
        """Follow the topic; whatever fails is told and tried again from the table's positions."""
        while True:
            try:
                await self._follow()
            except FenceConflict as error:
                log.warning("the table is at another position; reading again from there", table=self.table.name, reason=str(error))
                self._board.down(self.table.name, str(error))
            except TidemillError as error:
                self._board.down(self.table.name, str(error))
            except (KafkaError, OSError) as error:
                self._board.down(self.table.name, f"Kafka at {self._kafka.bootstrap_servers}: {type(error).__name__} {error}".rstrip())
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        await asyncio.to_thread(self._read_positions)
        reader = consumer(self._kafka)
        try:
            await reader.start()
            await self._seek(reader)
            self._board.up(self.table.name)
            flushed = 0.0
            while True:
                read = await self._collect(reader, flushed + self._flush.seconds)
                flushed = time.monotonic()
                if read.records:
                    await asyncio.to_thread(self._commit, read)
                await self._check(reader)
        finally:
            await reader.stop()

    def _read_positions(self) -> None:
        """Positions from the table, and the checksum of each partition's last row."""
        self._log.open()
        topic = self.table.topic
        self.positions = {p: self._log.position(topic, p) for p in range(self.table.partitions)}
        self._proofs = self._store.snapshot(self.table.name).proofs_before(self.positions)

    async def _seek(self, reader: AIOKafkaConsumer) -> None:
        """Places the reader one record before each position, where there is one, to compare it. Raises TopicRecreated."""
        partitions = [TopicPartition(self.table.topic, p) for p in self.positions]
        async with asyncio.timeout(KAFKA_SECONDS):
            begins, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
        reader.assign(partitions)
        for target in partitions:
            position = self.positions[target.partition]
            if not begins[target] <= position <= ends[target]:
                raise self._recreated(target.partition, position, f"Kafka holds the offsets from {begins[target]} up to {ends[target]}")
            again = target.partition in self._proofs and begins[target] < position
            self._next[target.partition] = position - again
            reader.seek(target, position - again)
        self._note_ends(ends)

    async def _collect(self, reader: AIOKafkaConsumer, due: float) -> _Read:
        """Reads until a commit is due: not before `due` (monotonic seconds) unless much has been read; nothing within a second: empty."""
        read, size_bytes = _Read({}), 0
        while True:
            wait_seconds = max(due - time.monotonic(), 0.0) if read.records else max(due - time.monotonic(), RETRY_SECONDS)
            fetched = await reader.getmany(timeout_ms=int(wait_seconds * 1000), max_records=self._flush.rows)
            for target, records in fetched.items():
                fresh = self._dense(target.partition, records)
                size_bytes += read.add(target.partition, fresh) if fresh else 0
            late = time.monotonic() >= due
            if (late and (read.records or not fetched)) or read.rows >= self._flush.rows or size_bytes >= self._flush.size_bytes:
                return read

    def _dense(self, partition: int, records: list[Any]) -> list[Any]:
        """The records that are not in the table yet. Raises TopicRecreated on a hole, or when the last stored record is another one now."""
        expected = self._next[partition]
        if records[0].offset != expected or records[-1].offset - expected != len(records) - 1:
            raise self._recreated(
                partition, expected, f"Kafka gives {len(records)} records from {records[0].offset} to {records[-1].offset}"
            )
        self._next[partition] = records[-1].offset + 1
        if expected == self.positions[partition] - 1 and (proof := self._proofs.get(partition)) is not None:
            if proof_of(records[0].key, records[0].value) != proof:
                raise self._recreated(partition, expected + 1, f"the record at {expected} is not the one that was stored")
            return records[1:]
        return records

    def _commit(self, read: _Read) -> None:
        start = time.perf_counter()
        rows = pa.Table.from_batches([self.table.rows(p, records) for p, records in sorted(read.records.items())])
        moves = {p: (records[0].offset, records[-1].offset + 1) for p, records in read.records.items()}
        self._log.append(rows, {(self.table.topic, p): move for p, move in moves.items()})
        self.positions |= {p: end for p, (_, end) in moves.items()}
        self._rows.inc(len(rows))
        self._seconds.observe(time.perf_counter() - start)

    async def _check(self, reader: AIOKafkaConsumer) -> None:
        """Every few seconds: whether Kafka still answers and still has what was read; sets the lag."""
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                ends = await reader.end_offsets([TopicPartition(self.table.topic, p) for p in self.positions])
        except TimeoutError:
            raise KafkaUnavailable(
                f"Kafka at {self._kafka.bootstrap_servers} does not answer", mend="start it; reading goes on by itself"
            ) from None
        for target, end in ends.items():
            if end < self.positions[target.partition]:
                raise self._recreated(target.partition, self.positions[target.partition], f"Kafka ends at {end}")
        self._note_ends(ends)

    def _note_ends(self, ends: dict[TopicPartition, int]) -> None:
        self._checked = time.monotonic()
        for target, end in ends.items():
            self._lags[target.partition].set(end - self.positions[target.partition])

    def _recreated(self, partition: int, position: int, found: str) -> TopicRecreated:
        return TopicRecreated(
            f"{self.table.topic}[{partition}] is stored up to offset {position} in table {self.table.name!r}, but {found}",
            mend="the topic was truncated or made anew: restore it, or move the table away to begin again from what Kafka has",
        )
