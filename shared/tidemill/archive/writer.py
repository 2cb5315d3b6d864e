"""The worker that keeps an event's table in step with the event's topic: every accepted event once, from the topic itself.

The topic belongs to an application. So offsets may hold no record, records may expire before they are read (an error is logged, and the
writer goes on), and there may be more partitions tomorrow. A topic that was made anew is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow.compute as pc
from aiokafka import TopicPartition

from tidemill.archive.columns import ID, KNOWN, OFFSET, PARTITION, TIME, TOPIC
from tidemill.archive.retention import ArchiveSettings, forget_before
from tidemill.archive.rows import EventTable, event_table
from tidemill.clock import now_ms
from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable
from tidemill.kafka.client import gathering
from tidemill.kafka.reader import Reader
from tidemill.kafka.sparse_reader import SparseReader, Witness
from tidemill.kafka.topics import offset_ranges
from tidemill.offline.mirror import Flush, Follower
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.registry import configured_frames
from tidemill.routing.events import EventReader
from tidemill.routing.refusals import PassedOver, Refused
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.threads import to_its_end

log = get_logger(__name__)

_WITNESS_OFFSETS = 10_000  # how far below a position the last archived event is looked for
_FORGET_SECONDS = 3600.0


class ArchiveWriter(Follower):
    """Archives one event, and deletes what is older than `settings` keep."""

    table: EventTable

    def __init__(
        self,
        store: OfflineStore,
        project: Project,
        event: Event,
        kafka: KafkaSettings,
        board: HealthBoard,
        flush: Flush,
        settings: ArchiveSettings,
    ) -> None:
        super().__init__(store, event_table(project, event), kafka, board, flush)
        self._project, self._event, self._settings = project, event, settings
        self._forget_at = 0.0

    async def _open(self) -> Reader:
        held = await offset_ranges(self._kafka, self.table.topic)
        if not held:
            raise KafkaUnavailable(f"there is no topic {self.table.topic}", mend="start ingestion, which makes it")
        witnesses = await to_its_end(self._open_table, [target.partition for target in held])
        positions = {TopicPartition(self.table.topic, p): position for p, position in self.positions.items()}
        return SparseReader(self._kafka, positions, witnesses, self._expired, **gathering(self._flush.seconds))

    def _open_table(self, partitions: list[int]) -> dict[TopicPartition, Witness]:
        """Opens the table and reads the positions of some partitions; returns the last archived event of each, where there is one."""
        name = self.table.name
        found = self._store.find(name)
        self.table = event_table(self._project, self._event, found and found.schema, configured_frames())
        self._writer = self._store.topic_table(self.table)
        self._writer.open()
        self.positions = {p: self._writer.position(p) for p in partitions}
        return dict(self._witnesses(self._store.snapshot(name)))

    def _witnesses(self, snapshot: Snapshot) -> Iterator[tuple[TopicPartition, Witness]]:
        for partition, position in self.positions.items():
            lowest = max(position - _WITNESS_OFFSETS, 0)
            near = (pc.field(PARTITION) == partition) & (pc.field(OFFSET) >= lowest) & (pc.field(OFFSET) < position)
            rows = snapshot.scan([OFFSET, KNOWN, TIME, ID], near, among=(TOPIC, [self.table.topic]), order=(OFFSET,))
            if len(rows):
                offset, known, happened, event_id = rows.slice(len(rows) - 1).to_pylist()[0].values()
                expected = (round(known.timestamp() * 1000), round(happened.timestamp() * 1000), event_id)
                target = TopicPartition(self.table.topic, partition)
                yield target, Witness(offset, partial(_is_same, self.table.reader, expected))

    def _outgrown(self, reader: Reader) -> bool:
        return reader.partitions(self.table.topic) > len(self.positions)

    def _expired(self, target: TopicPartition, count: int) -> None:
        log.error("retention removed events before they were archived", topic=target.topic, partition=target.partition, lost=count)
        metrics.OFFLINE_EXPIRED.labels(target.topic).inc(count)

    def _maintain(self) -> None:
        super()._maintain()
        if time.monotonic() >= self._forget_at:
            forget_before(self._store, self._event, self._settings.kept_since_ms(now_ms()))
            self._forget_at = time.monotonic() + _FORGET_SECONDS


def _is_same(reader: EventReader, expected: tuple[int, int, str | None], record: Any) -> bool:
    """Whether a record is the archived event. One that is refused or passed over now, by other declarations, may be it."""
    try:
        event = reader.read(record.value, record.headers, record.timestamp)
    except (Refused, PassedOver):
        return True
    return (event.known_ms, event.time_ms, event.id) == expected
