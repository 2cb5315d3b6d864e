"""A whole log: its offline rows, and the records that only Kafka has."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka import TopicPartition

from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kernel.fold import LogEntry
from tidemill.offline.history import Ints, PartitionLog, resent, told_since
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import MirrorTable, view_table
from tidemill.operations.repartition.merge import merge
from tidemill.records import ViewRecord, encode, since_of, since_record
from tidemill.runtime.settings import KafkaSettings

FETCH_RECORDS = 50_000
_MOVED = 32  # bits: above them stands the old log's partition count, below them the old partition

Note = Callable[[int, int], None]
"""Called with the number of records read so far, and of all."""


def moved_source(partitions: int, partition: int) -> int:
    """The source partition of records that had to leave their source's order: one for each partition of each old log of a view."""
    return partitions << _MOVED | partition


def is_moved(source_partition: int) -> bool:
    """Whether a source partition is from `moved_source`, not one of the application's topic."""
    return source_partition >> _MOVED > 0


class Copy(NamedTuple):
    """A record as the new log has it. `moved`: it had to leave its source's order."""

    key: bytes
    value: bytes
    moved: bool


class Part(NamedTuple):
    """The rows of one old partition, in offset order, and where each goes: a new partition, or -1 when it is left out."""

    rows: pa.Table
    destinations: Ints


class OldLog:
    """The records of a view under its old partition count, and how they are spread over the new partitions."""

    def __init__(self, view: FeatureView, tables: Sequence[pa.Table], partitions: int) -> None:
        self.view, self.undecodable, self.sent_twice = view, 0, 0
        self._partitions, self.since_ms = partitions, max((told_since(table) for table in tables), default=0)
        self._parts = [self._spread(table, partitions) for table in tables]

    def _spread(self, table: pa.Table, partitions: int) -> Part:
        destinations = np.fromiter((zlib.crc32(key.encode()) % partitions for key in table["key"].to_pylist()), np.int64, len(table))
        usable = np.flatnonzero(table["time"].is_valid().to_numpy(zero_copy_only=False))
        of_usable = table.select(["source_partition", "source_offset"]).take(usable)
        twice = usable[resent(of_usable["source_partition"].to_numpy(), of_usable["source_offset"].to_numpy())]
        told = sum(since_of(key.encode()) is not None for key in table.filter(table["time"].is_null())["key"].to_pylist())
        self.undecodable += len(table) - len(usable) - told
        self.sent_twice += len(twice)
        left_out = np.ones(len(table), bool)
        left_out[usable] = False
        left_out[twice] = True
        destinations[left_out] = -1
        return Part(table, destinations)

    def count(self, partition: int | None = None) -> int:
        """How many records go to a new partition, or to all. If the log says since when it is fed, each new partition begins with a record
        that says so."""
        told = 0 if not self.since_ms else self._partitions if partition is None else 1
        return told + int(sum(((p.destinations >= 0) if partition is None else p.destinations == partition).sum() for p in self._parts))

    def sources(self) -> dict[int, int]:
        """The last offset of each partition of the application's topic."""
        found: dict[int, int] = {}
        for part in self._parts:
            grouped = part.rows.filter(part.rows["time"].is_valid()).group_by("source_partition").aggregate([("source_offset", "max")])
            for partition, offset in zip(grouped["source_partition"].to_pylist(), grouped["source_offset_max"].to_pylist(), strict=True):
                if not is_moved(partition):
                    found[partition] = max(found.get(partition, -1), offset)
        return found

    def shares(self, partition: int) -> list[PartitionLog]:
        """The rows that go to a new partition, by old partition, each in its order."""
        return [PartitionLog(self.view, rows) for rows in self._shares(partition)]

    def _shares(self, partition: int) -> list[pa.Table]:
        return [part.rows.take(np.flatnonzero(part.destinations == partition)) for part in self._parts]

    def copies(self, partition: int) -> Iterator[Copy]:
        """The records of a new partition, in order."""
        if self.since_ms:
            yield Copy(*since_record(self.since_ms), False)
        shares = self._shares(partition)
        entries = [PartitionLog(self.view, share).entries() for share in shares]
        sources = [list(zip(*(share[name].to_pylist() for name in ("source_partition", "source_offset")), strict=True)) for share in shares]
        for queue, moved in merge(sources):
            entry = next(entries[queue])
            yield Copy(entry.key, self._value(entry, moved_source(self.view.partitions, queue) if moved else None), moved)

    def _value(self, entry: LogEntry, moved: int | None) -> bytes:
        record = entry.record
        assert record is not None  # records that cannot be decoded are left out
        fields = {name: getattr(record.values, name) for name in self.view.value_fields}
        values = {name: value for name, value in fields.items() if value is not None}
        source = record.source if moved is None else (moved, entry.offset)
        return encode(ViewRecord(record.time, record.known, source, values, record.id))


class Read(NamedTuple):
    """A log's rows by partition, and where each partition ends."""

    tables: list[pa.Table]
    ends: dict[TopicPartition, int]


async def read_log(project: Project, view: FeatureView, store: OfflineStore, kafka: KafkaSettings, note: Note) -> Read:
    """Every row of a log: those of the offline table, then those that only Kafka has.

    Raises TopicRecreated when Kafka does not go on where the table ends, KafkaUnavailable, OfflineUnavailable.
    """
    table = view_table(project, view)
    rows, positions, proofs = await asyncio.to_thread(_offline, store, table)
    partitions = [TopicPartition(table.topic, p) for p in range(table.partitions)]
    reader = DenseReader(
        kafka,
        {tp: positions.get(tp.partition, 0) for tp in partitions},
        {TopicPartition(table.topic, p): proof for p, proof in proofs.items()},
    )
    batches: list[list[pa.RecordBatch]] = [found.to_batches() for found in rows]
    async with reader:
        ends = await reader.ends()
        async for fetched in read_to_end(reader, ends):
            for tp, records in fetched.items():
                batches[tp.partition].append(table.rows(tp.partition, records))
            note(sum(reader.next.values()), sum(ends.values()))
    note(sum(reader.next.values()), sum(ends.values()))
    return Read([pa.Table.from_batches(found, table.schema) for found in batches], dict(reader.next))


def _offline(store: OfflineStore, table: MirrorTable) -> tuple[list[pa.Table], dict[int, int], dict[int, int]]:
    """Rows by partition, next offset and checksum of the last row."""
    snapshot = store.find(table.name)
    if snapshot is None:
        return [table.schema.empty_table()] * table.partitions, {}, {}
    rows = [snapshot.scan(table.schema.names, pc.field("partition") == p).cast(table.schema) for p in range(table.partitions)]
    return rows, snapshot.positions, snapshot.proofs_before(snapshot.positions)
