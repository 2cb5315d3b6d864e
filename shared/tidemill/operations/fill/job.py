"""Fills the log of a version of a view, in two phases:

1. The archive. One snapshot of the event's table: each row becomes the record that the router would have made, in the order in which the
   events became known over all partitions.
2. The application's topic, from the positions of that snapshot, routed as ingestion does. When little is left it stops, at the positions of
   the hand-over. From there ingestion routes, also what it had routed before by an older catalogue; nothing before them.

A fill that was killed is never resumed: its log is given up with the number of its version. So a filler that was only frozen writes to a
log that nobody reads.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from aiokafka import TopicPartition

from tidemill.archive.reading import loads, unfinished
from tidemill.archive.view_records import NO_HEADERS, RecordMaker, slices
from tidemill.catalogue.definitions import ViewVersion
from tidemill.chunks import chunks
from tidemill.declarations.project import Project
from tidemill.kafka.client import GATHERING, started_producer
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.reader import Reader
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.kafka.waves import Record
from tidemill.names import version_name
from tidemill.offline.store import OfflineStore, Snapshot, counter_name
from tidemill.operations.fill.around import archive_of
from tidemill.operations.fill.private_log import PrivateLog
from tidemill.records import since_record
from tidemill.registry import configured_frames
from tidemill.routing.router import Router
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs, view_topic

WAVE_RECORDS = 20_000
LITTLE = 1_000
"""So few events are left to ingestion in any case; else what is read in a second."""

EVENTS_A_SECOND = 50_000
"""At least so many archived events a second are filled; `benchmarks/fill.py` measures more."""

Phase = Literal["archive", "live"]


class FillProgress(Protocol):
    """Called with the progress of a phase."""

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        """`done` of `total` events."""


@dataclass
class Filled:
    """What a fill did. `handover`: partition of the event's topic -> the offset from which ingestion routes; `ends`: of the log; `archived`
    and `live`: events read in each phase; `passed_over`: archived events for which the view's `where` is not true; `unkeyed`: those without a key; `ahead`: those too far ahead for the view; `loads`: the files of which
    the archive had all history."""

    handover: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    archived: int = 0
    live: int = 0
    passed_over: int = 0
    unkeyed: int = 0
    ahead: int = 0
    loads: set[str] = field(default_factory=set)


class Fill:
    """Fills one version of a view. `project`: what the catalogue means while the version is filled; `since_ms`: the log says that it lacks
    events routed before this moment (None: it has all)."""

    def __init__(
        self,
        project: Project,
        version: ViewVersion,
        store: OfflineStore,
        kafka: KafkaSettings,
        since_ms: int | None,
        progress: FillProgress,
    ) -> None:
        self._project, self._store, self._kafka = project, store, kafka
        self._view = project.views[version_name(version.view.name, version.version)]
        self._topic = view_topic(project.name, self._view.log)
        self._since_ms, self._progress, self._done = since_ms, progress, Filled()

    async def run(self) -> Filled:
        """Fills the log, which must not hold records. Afterwards the version can be handed over; until then nobody reads the log.

        Raises TidemillError when somebody else writes to the log, KafkaUnavailable, KafkaRefused, OfflineUnavailable, TopicRecreated.
        """
        specs, source = topic_specs(self._project), self._view.source
        await ensure_topics(self._kafka, {topic: specs[topic] for topic in (self._topic, source.topic)})
        async with started_producer(self._kafka) as producer:
            log = PrivateLog(producer, self._topic, self._view.partitions)
            await log.check_empty(self._kafka)
            if self._since_ms is not None:
                await log.send({partition: [(*since_record(self._since_ms), NO_HEADERS)] for partition in log.ends})
            snapshot = await asyncio.to_thread(archive_of, self._store, source.name)
            if snapshot is not None:
                self._done.loads = await asyncio.to_thread(loads, snapshot)
                left_out = sum((await asyncio.to_thread(unfinished, snapshot)).values())
                await self._archive(log, snapshot, snapshot.rows - left_out)
            await self._live(log, snapshot)
        self._done.ends = dict(log.ends)
        return self._done

    async def _archive(self, log: PrivateLog, snapshot: Snapshot, total: int) -> None:
        maker = RecordMaker(self._view)
        tables = slices(self._store, self._view, snapshot)
        while (events := await asyncio.to_thread(next, tables, None)) is not None:
            for first in range(0, len(events), WAVE_RECORDS):
                made = maker.made(events.slice(first, WAVE_RECORDS))
                await log.send(made.records)
                done = self._done
                done.archived, done.passed_over = done.archived + made.events, done.passed_over + made.passed_over
                done.unkeyed, done.ahead = done.unkeyed + made.unkeyed, done.ahead + made.ahead
                self._progress("archive", done.archived, total)

    async def _live(self, log: PrivateLog, snapshot: Snapshot | None) -> None:
        started, router = time.monotonic(), Router(self._project, {self._view.log: {}}, configured_frames())
        held = await offset_ranges(self._kafka, self._view.source.topic)
        async with Reader(self._kafka, {target: _archived(snapshot, target) for target in held}, **GATHERING) as reader:
            left, little = await _left(reader), LITTLE
            while left > little:
                total = self._done.live + left
                async for fetched in read_to_end(reader):
                    for target, records in fetched.items():
                        for part in chunks(records, WAVE_RECORDS):
                            await log.send(self._routed(router, target, part))
                            self._done.live += len(part)
                    self._progress("live", min(self._done.live, total), total)
                came = await _left(reader)
                a_second = int(self._done.live / (time.monotonic() - started))
                little = max(LITTLE, a_second, came if came >= left else 0)  # events that come faster than they are read: ingestion goes on
                left = came
            self._done.handover = {target.partition: position for target, position in reader.next.items()}

    def _routed(self, router: Router, source: TopicPartition, events: list[Any]) -> dict[int, list[Record]]:
        found: dict[int, list[Record]] = {}
        for event in events:
            for topic, partition, key, value in router.route(
                source.topic, source.partition, event.offset, event.timestamp, event.key, event.value, event.headers
            ):
                if topic == self._topic:  # the others are dead letters, which ingestion writes
                    found.setdefault(partition, []).append((key, value, NO_HEADERS))
        return found


def _archived(snapshot: Snapshot | None, target: TopicPartition) -> int:
    return 0 if snapshot is None else snapshot.counter(counter_name(target.topic, target.partition))


async def _left(reader: Reader) -> int:
    return sum(end - reader.next[target] for target, end in (await reader.ends()).items())
