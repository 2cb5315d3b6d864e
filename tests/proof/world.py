"""A project's whole log without servers: events go through ingestion's own routing into partitions, and from there into the offline store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from tests.offline.lake import numbered

from tidemill.archive.rows import EventTable, event_table
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import mirror_tables
from tidemill.records import PredictionRecord, encode
from tidemill.routing.router import Router
from tidemill.streams.topics import predictions_topic, view_topic

Place = tuple[str, int]
Happened = tuple[int, str, dict[str, Any]]


class Published(NamedTuple):
    """An event on its topic."""

    offset: int
    key: bytes | None
    value: bytes
    timestamp: int
    headers: list[tuple[str, bytes]]


@dataclass
class World:
    """`events`: every event by topic and partition; `logs`: key and value of every record that they became, by topic and partition; both in
    offset order. `written`: how much of each the offline store has."""

    project: Project
    root: Path
    events: dict[Place, list[Published]] = field(default_factory=lambda: defaultdict(list))
    logs: dict[Place, list[tuple[bytes | None, bytes | None]]] = field(default_factory=lambda: defaultdict(list))
    written: dict[Place, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def store(self) -> OfflineStore:
        """The offline store."""
        return OfflineStore(self.root)

    def publish(self, happened: Iterable[Happened]) -> None:
        """Events as an application publishes them: (known, event, data); each is routed once."""
        router = Router(self.project)
        for known_ms, name, data in happened:
            headers = [("ce_type", name.encode()), ("ce_recordedtime", b"%d" % known_ms)]
            topic, value = self.project.events[name].topic, msgspec.json.encode(data)
            published = self.events[topic, 0]
            published.append(Published(len(published), None, value, known_ms, headers))
            routed = router.route(topic, 0, len(published) - 1, known_ms, None, value, headers)
            for topic, partition, key, value in routed:
                self.logs[topic, partition].append((key, value))
        assert not router.refused, router.refused

    def append(self, view: FeatureView, key: bytes, value: bytes) -> None:
        """One record straight into a view's topic, whatever it holds."""
        self.logs[view_topic(self.project.name, view.log), partition_of(key, view.partitions)].append((key, value))

    def predict(self, predictions: Iterable[PredictionRecord]) -> None:
        """Predictions as inference logs them."""
        for record in predictions:
            self.logs[predictions_topic(self.project.name), 0].append((record.id.encode(), encode(record)))

    def write(self, ends: Mapping[Place, int] | None = None) -> OfflineStore:
        """Brings the offline store up to the ends of the logs, or to those given."""
        for event in self.project.events.values():
            self._archive(event_table(self.project, event))
        for table in mirror_tables(self.project):
            log = self.store.topic_table(table)
            log.open()
            for partition in range(table.partitions):
                place = table.topic, partition
                start, end = self.written[place], (ends or {}).get(place, len(self.logs[place]))
                if end > start:
                    log.append(table.rows(partition, numbered(self.logs[place][start:end], start)), {place: (start, end)})
                    self.written[place] = end
        return self.store

    def _archive(self, table: EventTable) -> None:
        """Brings the archive of an event up to the end of what was published."""
        place = table.topic, 0
        log, start, end = self.store.topic_table(table), self.written[place], len(self.events[place])
        log.open()
        if end > start:
            log.append(table.rows_of({0: self.events[place][start:]}), {place: (start, end)})
            self.written[place] = end

    def fold(self, view: FeatureView, partition: int, end: int | None = None) -> tuple[PartitionFold, dict[bytes, EntityState]]:
        """What feature computation makes of a partition's records below `end`, one by one."""
        fold, states, decode = PartitionFold.start(ViewKernel(view)), dict[bytes, EntityState](), entry_decoder(view)
        for offset, (key, value) in enumerate(self.logs[view_topic(self.project.name, view.log), partition][:end]):
            fold.advance([decode(offset, key, value)], states)
        return fold, states
