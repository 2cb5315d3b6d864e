"""The way from the application topics to ours: fetch, route, wait for every acknowledgement, commit; one wave after the other.

A wave is what one fetch gave. All that it becomes is acknowledged before its positions are committed, and the next wave starts after that, so
after a crash the same events are routed again from the committed position: twice perhaps, never out of order, never with a hole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from time import perf_counter
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from tidemill.declarations.project import Project
from tidemill.errors import KafkaRefused, KafkaUnavailable, TidemillError, TopicRecreated
from tidemill.kafka.client import FETCH_BYTES, RETRY_SECONDS, close_consumer, close_producer, consumer, producer
from tidemill.kafka.waves import Record, send_wave
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group
from tidemill_ingestion.refusals import Reason
from tidemill_ingestion.routing import Router

log = get_logger(__name__)

WAVE_EVENTS = 2_000
"""The most events of one wave: it bounds memory and how long the loop is busy without a turn for others (some 20 ms)."""

POLL_MS = 200
SESSION_MS = 6_000
NO_HEADERS: list[tuple[str, bytes]] = []
CLOSE_SECONDS = 2.0
Wave = dict[tuple[str, int], list[Record]]
Fetched = dict[TopicPartition, list[ConsumerRecord]]


class EventConsumer:
    """Routes the events of a project's topics. Use it as a context manager: `run` inside, until `stop`.

    `positions`: up to where each of our partitions is routed and committed.
    """

    def __init__(self, settings: KafkaSettings, project: Project, member: str | None = None) -> None:
        self._settings = settings
        self._router = Router(project)
        self._events = {event.topic: event.name for event in project.events.values()}
        for topic in self._events:
            for reason in Reason:
                metrics.DEAD_LETTERS.labels(topic, reason)  # at 0, so that the first one is an increase
        self._group = ingestion_group(project.name)
        self._member = member
        self._stopping = False
        self._placed: frozenset[TopicPartition] = frozenset()
        self.positions: dict[TopicPartition, int] = {}
        self.kafka: AIOKafkaConsumer
        self._producer: AIOKafkaProducer

    async def __aenter__(self) -> Self:
        """Connect and join the group. Raises KafkaUnavailable."""
        self.kafka = consumer(
            self._settings, *self._events, group=self._group, group_instance_id=self._member,
            max_partition_fetch_bytes=2 * FETCH_BYTES, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=SESSION_MS // 3,
        )  # fmt: skip
        self._producer = producer(self._settings)
        try:
            await self._producer.start()
            await self.kafka.start()
        except (KafkaError, TimeoutError) as error:
            await self._close()
            raise KafkaUnavailable(f"cannot join the group {self._group}: {type(error).__name__} {error}", mend="start Kafka") from error
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    async def _close(self) -> None:
        await close_producer(self._producer, CLOSE_SECONDS)
        await close_consumer(self.kafka, CLOSE_SECONDS)

    def stop(self) -> None:
        """Make `run` return after the wave in progress."""
        self._stopping = True

    async def run(self) -> None:
        """Route until stopped. Raises TopicRecreated, and TidemillError for a record that aiokafka cannot read."""
        while not self._stopping:
            if self.kafka.assignment() != self._placed:
                await self._place()
            try:
                fetched: Fetched = await self.kafka.getmany(timeout_ms=POLL_MS, max_records=WAVE_EVENTS)
            except KafkaError as error:
                log.warning("going back to the committed positions", reason=f"{type(error).__name__} {error}")
                self._placed = frozenset()
                await asyncio.sleep(RETRY_SECONDS)
            except UnicodeDecodeError as error:  # aiokafka cannot read on behind a header whose name is not UTF-8
                raise TidemillError(
                    f"a record behind {_shown(self.positions)} has a header whose name is not UTF-8: {error}",
                    mend=f"find it, and set the committed offset of the group {self._group} behind it with kafka-consumer-groups",
                ) from error
            else:
                if fetched:
                    await self._forward(fetched)
                else:
                    await self._pass_markers()

    async def _pass_markers(self) -> None:
        """With nothing left to fetch we are behind the marks that transactions leave in a log, and behind what they took back."""
        with contextlib.suppress(KafkaError):
            if self.kafka.assignment() == self._placed:
                self.positions.update({partition: await self.kafka.position(partition) for partition in self._placed})

    async def _forward(self, fetched: Fetched) -> None:
        started = perf_counter()
        wave = self._route(fetched)
        await self._send(wave)
        await self._commit({partition: records[-1].offset + 1 for partition, records in fetched.items()})
        metrics.INGESTION_WAVE_SECONDS.observe(perf_counter() - started)
        self._count(fetched, wave)

    def _route(self, fetched: Fetched) -> Wave:
        wave: Wave = defaultdict(list)
        route = self._router.route
        for (topic, partition), records in fetched.items():
            name = self._events[topic]
            for record in records:
                routed = route(name, topic, partition, record.offset, record.timestamp, record.key, record.value, record.headers)
                for out_topic, out_partition, key, value in routed:
                    wave[out_topic, out_partition].append((key, value, NO_HEADERS))
        return wave

    async def _send(self, wave: Wave) -> None:
        """Write a wave; a producer that was refused cannot go on (see KafkaRefused), so another writes the whole wave again."""
        while True:
            try:
                await send_wave(self._producer, wave)
                return
            except KafkaRefused as refused:
                log.error("writing the wave again with a new producer", reason=refused.message, mend=refused.mend)
                await close_producer(self._producer, CLOSE_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)
                self._producer = producer(self._settings)
                await self._start_producer()

    async def _start_producer(self) -> None:
        while True:
            try:
                await self._producer.start()
                return
            except (KafkaError, TimeoutError) as error:
                log.warning("waiting to write", reason=repr(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _commit(self, positions: dict[TopicPartition, int]) -> None:
        """Commit, for as long as it takes. A partition that went to another member meanwhile is that one's to commit."""
        while True:
            ours = self.kafka.assignment()
            mine = {partition: position for partition, position in positions.items() if partition in ours}
            if not mine:
                return
            try:
                await self.kafka.commit(mine)
                self.positions.update(mine)
                return
            except (CommitFailedError, IllegalStateError) as error:
                log.info("the group was rearranged before a commit", reason=type(error).__name__)
                return
            except KafkaError as error:
                log.warning("waiting to commit", reason=repr(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _place(self) -> None:
        """Go to the committed positions of all our partitions, or to the beginning where there are none. Raises TopicRecreated."""
        placed, positions = self.kafka.assignment(), {}
        try:
            begins, ends = await self.kafka.beginning_offsets(placed), await self.kafka.end_offsets(placed)
            for partition in placed:
                committed = await self.kafka.committed(partition)
                positions[partition] = _position(partition, committed, begins[partition], ends[partition])
                self.kafka.seek(partition, positions[partition])
        except (KafkaError, TimeoutError) as error:
            log.warning("waiting for the committed positions", reason=repr(error))
            await asyncio.sleep(RETRY_SECONDS)
            return
        log.info("routing from", positions=_shown(positions))
        self._placed, self.positions = placed, positions

    def _count(self, fetched: Fetched, wave: Wave) -> None:
        for partition, records in fetched.items():
            metrics.EVENTS_IN.labels(partition.topic).inc(len(records))
        for (topic, _), records in wave.items():
            metrics.EVENTS_OUT.labels(topic).inc(len(records))
        for (topic, reason), count in self._router.refused.items():
            metrics.DEAD_LETTERS.labels(topic, reason).inc(count)
        for topic, count in self._router.unkeyed.items():
            metrics.UNKEYED.labels(topic).inc(count)
        self._router.refused.clear()
        self._router.unkeyed.clear()


def _shown(positions: dict[TopicPartition, int]) -> dict[str, int]:
    return {f"{topic}[{partition}]": offset for (topic, partition), offset in sorted(positions.items())}


def _position(partition: TopicPartition, committed: int | None, begin: int, end: int) -> int:
    """Where to go on. Raises TopicRecreated when the log ends before the committed position."""
    if committed is None:
        return begin
    if committed > end:
        raise TopicRecreated(
            f"{partition.topic}[{partition.partition}] ends at {end}, but was routed up to {committed}: it was made anew or has lost its end",
            mend="the views hold its old positions and would skip its new records: give the event a new topic, or begin a new project name",
        )
    if committed < begin:
        log.error(
            "retention removed events before they were routed", topic=partition.topic, partition=partition.partition, lost=begin - committed
        )
        metrics.EVENTS_EXPIRED.labels(partition.topic).inc(begin - committed)
    return max(committed, begin)
