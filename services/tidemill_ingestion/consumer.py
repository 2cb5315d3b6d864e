"""From the application topics to our topics, one wave after the other. A wave is the result of one fetch:

1. Fetch events. While there is a backlog, no partition runs ahead of another in time (`time_order.py`).
2. Route them: each becomes its records (`Router`).
3. Send the records, and wait until Kafka has acknowledged all of them.
4. Commit the positions of the events. Only then the next wave starts.

So after a crash the same events are routed again from the committed positions: perhaps twice, never out of order, never with a gap.

A committed position with its number says: all events below it are in all logs that this catalogue knows. So every wave must follow events of
which that is known. After each rebalance we choose the positions anew, also when the partitions are the same as before: another member may
have had them meanwhile. Kafka's client has chosen by then, and perhaps fetched; that is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from time import monotonic, perf_counter
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from tidemill.catalogue.definitions import NOTHING, Definitions
from tidemill.declarations.project import Project
from tidemill.errors import KafkaRefused, RegistryUnavailable, TidemillError, TopicRecreated
from tidemill.kafka.client import FETCH_BYTES, RETRY_SECONDS, close_consumer, close_producer, consumer, kafka_errors, start_producer
from tidemill.kafka.patches import assignment_of, committed_with_metadata
from tidemill.kafka.waves import Record, send_wave
from tidemill.registry import configured_frames
from tidemill.routing.refusals import Reason
from tidemill.routing.router import Router
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.streams.topics import ingestion_group
from tidemill_ingestion.time_order import TimeOrder, slices

log = get_logger(__name__)

WAVE_EVENTS = 2_000
"""The most events of one wave. It limits memory, and how long the event loop runs nothing else (some 20 ms)."""

POLL_MS = 200
SESSION_MS = 6_000
NO_HEADERS: list[tuple[str, bytes]] = []
NOWHERE = object()
"""No assignment."""

CLOSE_SECONDS = 2.0
Wave = dict[tuple[str, int], list[Record]]
Fetched = dict[TopicPartition, list[ConsumerRecord]]


class EventConsumer:
    """Routes the events of a project's topics. Use it as a context manager: `run` inside, until `stop`.

    `waits_for`: why nothing is routed although events wait, if it is not for Kafka; `positions`: the offset up to which each of our partitions is routed and committed; `declared`: all partitions that members of
    `group` should read.

    `member`: a name that an instance has again after a restart. So it gets its partitions back at once, and does not wait until the group
    notices that its predecessor died. A group gives a known member its old partitions, even if it subscribes to other topics now; so
    the name has a digest of the topics.

    `definitions`: the catalogue that holds the project. Its number is committed beside each position. Whoever reads the position later sees
    by which catalogue the events below were routed, and goes back to where logs were handed over since. No log gets an event from before its
    own hand-over then: one that was filled from the archive has it, under another source.
    """

    def __init__(self, settings: KafkaSettings, project: Project, member: str | None = None, definitions: Definitions = NOTHING) -> None:
        self._settings = settings
        self._router = Router(project, definitions.begins if definitions.number else None, configured_frames())
        self._definitions = definitions
        self._events = {
            event.topic: [each.name for each in project.events.values() if each.topic == event.topic] for event in project.events.values()
        }
        for topic in self._events:
            for reason in Reason:
                metrics.DEAD_LETTERS.labels(topic, reason)  # starts at 0, so that the first letter is an increase
        self.group = ingestion_group(project.name)
        self.declared = frozenset(TopicPartition(event.topic, n) for event in project.events.values() for n in range(event.partitions))
        self._instance = None if member is None else f"{member}-{_digest(self._events)}"
        self._stopping = False
        self.waits_for: str | None = None
        self._placed: object = NOWHERE
        self._order = TimeOrder()
        self._fetched: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.kafka: AIOKafkaConsumer
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        """Connect and join the group. Raises KafkaUnavailable."""
        self.kafka = consumer(
            self._settings, *self._events, group=self.group, group_instance_id=self._instance,
            max_partition_fetch_bytes=2 * FETCH_BYTES, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=SESSION_MS // 3,
        )  # fmt: skip
        try:
            self._producer = await start_producer(self._settings)
            with kafka_errors(self._settings):
                await self.kafka.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._close_producer()
        await close_consumer(self.kafka, CLOSE_SECONDS)

    async def _close_producer(self) -> None:
        made, self._producer = self._producer, None
        if made is not None:
            await close_producer(made, CLOSE_SECONDS)

    def stop(self) -> None:
        """Make `run` return after the wave in progress."""
        self._stopping = True

    async def run(self) -> None:
        """Route until stopped. Raises TopicRecreated, and TidemillError for a record that aiokafka cannot read."""
        while not self._stopping:
            if not self._is_placed:
                await self._place()
                continue
            try:
                fetched = await self._fetch()
            except KafkaError as error:
                log.warning("going back to the committed positions", reason=f"{type(error).__name__} {error}")
                self._placed = NOWHERE
                await asyncio.sleep(RETRY_SECONDS)
            except UnicodeDecodeError as error:  # aiokafka cannot decode a header whose name is not UTF-8, nor skip the record
                raise TidemillError(
                    f"a record at or after {_shown(self.positions)} has a header whose name is not UTF-8: {error}",
                    mend=f"stop ingestion, find the record's offset, and skip the record: kafka-consumer-groups --group {self.group} "
                    "--topic TOPIC:PARTITION --reset-offsets --to-offset OFFSET+1 --execute --bootstrap-server SERVER",
                ) from error
            else:
                if not self._is_placed:
                    continue  # a rebalance came meanwhile: these begin where the client chose, and are fetched again
                if fetched:
                    await self._forward(fetched)
                else:
                    await self._pass_markers()

    async def _fetch(self) -> Fetched:
        """The records of the next wave. None while partitions wait for another one that lags."""
        wanted = self._order.wanted(self.positions)
        fetched: Fetched = {}
        if wanted or not self.positions:  # without partitions it waits
            fetched = await self.kafka.getmany(*wanted, timeout_ms=POLL_MS, max_records=WAVE_EVENTS)
        if not self._is_placed:
            return {}
        for partition, records in fetched.items():
            self._fetched[partition] = records[-1].offset + 1
        lagging = [partition for partition, offset in self._fetched.items() if offset < self._end(partition)]
        return self._order.ready(fetched, lagging, monotonic())

    def _end(self, partition: TopicPartition) -> int:
        """The end of a partition, as far as we know."""
        return max(self._ends[partition], self.kafka.highwater(partition) or 0)

    @property
    def _is_placed(self) -> bool:
        """Whether we chose the positions of the present assignment. Only then does a wave follow what was routed before."""
        return assignment_of(self.kafka) is self._placed

    async def _pass_markers(self) -> None:
        """Moves our positions past markers of transactions and past aborted records, which the client skips without a fetch result."""
        with contextlib.suppress(KafkaError):
            passed = {partition: await self.kafka.position(partition) for partition in self._order.wanted(self.positions)}
            self.positions.update(passed)
            self._fetched.update(passed)

    async def _forward(self, fetched: Fetched) -> None:
        started = perf_counter()
        try:
            wave = self._route(fetched)
        except RegistryUnavailable as error:
            log.warning("waiting for the schema registry", reason=error.message, mend=error.mend)
            self._router.forget_counts()
            self.waits_for, self._placed = error.message, NOWHERE
            await asyncio.sleep(RETRY_SECONDS)
            return
        self.waits_for = None
        await self._send(wave)
        await self._commit({partition: records[-1].offset + 1 for partition, records in fetched.items()})
        metrics.INGESTION_WAVE_SECONDS.observe(perf_counter() - started)
        self._count(fetched, wave)

    def _route(self, fetched: Fetched) -> Wave:
        wave: Wave = defaultdict(list)
        route = self._router.route
        for (topic, partition), records in slices(fetched):
            for record in records:
                routed = route(topic, partition, record.offset, record.timestamp, record.key, record.value, record.headers)
                for out_topic, out_partition, key, value in routed:
                    wave[out_topic, out_partition].append((key, value, NO_HEADERS))
        return wave

    async def _send(self, wave: Wave) -> None:
        """Write a wave. A producer whose batch was refused cannot go on (see KafkaRefused), so a new one writes the whole wave again."""
        while True:
            if self._producer is None:
                self._producer = await supervise(partial(start_producer, self._settings), _waiting_to_write, pause_seconds=RETRY_SECONDS)
            try:
                await send_wave(self._producer, wave)
                return
            except KafkaRefused as refused:
                log.error("writing the wave again with a new producer", reason=refused.message, mend=refused.mend)
                await self._close_producer()
                await asyncio.sleep(RETRY_SECONDS)

    async def _commit(self, positions: dict[TopicPartition, int]) -> None:
        """Commit; retry until it succeeds. After a rebalance nothing is committed: whoever has the partitions now routes the wave again."""
        while self._is_placed:
            try:
                await self.kafka.commit({partition: (position, str(self._definitions.number)) for partition, position in positions.items()})
                self.positions.update(positions)
                return
            except (CommitFailedError, IllegalStateError) as error:
                log.info("the group was rearranged before a commit", reason=type(error).__name__)
                return
            except KafkaError as error:
                log.warning("waiting to commit", reason=repr(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _place(self) -> None:
        """Go to the committed positions of all our partitions, or further back where a log was handed over since, or to the beginning of
        those without one. Raises TopicRecreated."""
        assignment, placed, positions = assignment_of(self.kafka), self.kafka.assignment(), dict[TopicPartition, int]()
        try:
            found = await committed_with_metadata(self.kafka, placed)
            begins = await self.kafka.beginning_offsets(placed)
            ends = await self.kafka.end_offsets(placed)  # after the committed positions: both grow
            if assignment_of(self.kafka) is not assignment:
                return
            for partition in placed:
                at = found.get(partition)
                committed = None if at is None else self._routed_up_to(partition, *at, ends[partition])
                positions[partition] = _position(partition, committed, begins[partition])
                self.kafka.seek(partition, positions[partition])
        except (KafkaError, TimeoutError) as error:
            log.warning("waiting for the committed positions", reason=repr(error))
            await asyncio.sleep(RETRY_SECONDS)
            return
        log.info("routing from", positions=_shown(positions))
        self._order.forget()
        self._fetched, self._ends = dict(positions), dict(ends)
        self._placed, self.positions = assignment, positions

    def _routed_up_to(self, partition: TopicPartition, committed: int, metadata: str, end: int) -> int:
        """Up to where the events of a partition are routed to all logs. Raises TopicRecreated when the topic ends before the position."""
        if committed > end:
            raise TopicRecreated(
                f"{partition.topic}[{partition.partition}] ends at {end}, but was routed up to {committed}: it was made again or lost records",
                mend="the views know its old positions and would skip its new records: give the event a new topic, or the project a new name",
            )
        seen = int(metadata) if metadata.isdigit() else 0
        events = self._events[partition.topic]
        position = min(self._definitions.routed_from(event, partition.partition, committed, seen) for event in events)
        if position < committed:
            log.info("going back for a log that was handed over", topic=partition.topic, partition=partition.partition, position=position)
        return position

    def _count(self, fetched: Fetched, wave: Wave) -> None:
        for partition, records in fetched.items():
            metrics.EVENTS_IN.labels(partition.topic).inc(len(records))
        for (topic, _), records in wave.items():
            metrics.EVENTS_OUT.labels(topic).inc(len(records))
        for (topic, reason), count in self._router.refused.items():
            metrics.DEAD_LETTERS.labels(topic, reason).inc(count)
        for topic, count in self._router.unkeyed.items():
            metrics.UNKEYED.labels(topic).inc(count)
        for topic, count in self._router.passed_over.items():
            metrics.PASSED_OVER.labels(topic).inc(count)
        for (topic, why), count in self._router.no_event.items():
            metrics.NO_EVENT.labels(topic, why).inc(count)
        self._router.forget_counts()


def _digest(topics: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(sorted(topics)).encode()).hexdigest()[:8]


def _waiting_to_write(error: Exception) -> None:
    log.warning("waiting to write", reason=str(error))


def _shown(positions: dict[TopicPartition, int]) -> dict[str, int]:
    return {f"{topic}[{partition}]": offset for (topic, partition), offset in sorted(positions.items())}


def _position(partition: TopicPartition, committed: int | None, begin: int) -> int:
    """The offset to go on from."""
    if committed is None:
        return begin
    if committed < begin:
        log.error(
            "retention removed events before they were routed", topic=partition.topic, partition=partition.partition, lost=begin - committed
        )
        metrics.EVENTS_EXPIRED.labels(partition.topic).inc(begin - committed)
    return max(committed, begin)
