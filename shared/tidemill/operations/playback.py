"""Plays a recording back through the running system. At any speed a request is answered from the events that were known at its time.

The recording is cut into steps of event time. In each step:

1. The events that became known in it are published.
2. A barrier waits until the fences have passed all of them. A fence names the last event that it has seen of each source.
3. The predictions due at that moment are asked for. The next step begins after their answers.

So a request made at time t is answered when every event known up to t has been applied, and none after t. As fast as it goes, a step at
whose end nothing is due needs no barrier: its events are published with those of the next step, still before any later request.
"""

from __future__ import annotations

import asyncio
import heapq
import time
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tidemill.clock import Deadline
from tidemill.declarations import Model, Recording
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError, Unavailable
from tidemill.kafka.admin import admin
from tidemill.kafka.client import started_consumer, started_producer
from tidemill.kafka.waves import Record, send_wave
from tidemill.kernel.fences import position
from tidemill.online.keys import fence_key
from tidemill.operations.expected import Expectations, Expected, Placed, lacking
from tidemill.operations.inference_client import InferenceClient
from tidemill.redis.client import redis_client
from tidemill.redis.protocol import RedisClient
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group, view_topic
from tidemill.timestamps import FIRST_MS, parse_time_ms

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.001, 0.004  # every poll takes the processor from the services
_PATIENCE_SECONDS = 0.1  # for the fences alone; after it Kafka is asked for positions, which also show what lags
_SENDING_SECONDS = 0.002  # after it a request has left this process
_MOST_INSTANCES = 200
_MOST_GATHERED = 1_000  # events that wait for a request; as many cost more than a barrier
Moment = tuple[int, str, dict[str, Any]]


class Due(NamedTuple):
    """A prediction to ask for at `at_ms`."""

    at_ms: int
    order: int
    model: str
    instance: dict[str, Any]


class Round(NamedTuple):
    """One or more steps, the last of which ends at `time_ms`: the events to publish, and the predictions to ask for after them."""

    time_ms: int
    moments: list[Moment]
    due: list[Due]


class PlayedStep(NamedTuple):
    """One or more steps, the last of which ends at `time_ms`: the number of events published, the answers of inference, and how long the
    barrier took."""

    time_ms: int
    events: int
    answers: list[tuple[Due, dict[str, Any]]]
    barrier_seconds: float


@dataclass
class Agenda:
    """Predictions that are announced and not yet asked for. A request is made at the last step at or before its time, or later when it is
    announced later."""

    models: list[Model]
    step_ms: int

    def __post_init__(self) -> None:
        self._waiting: list[Due] = []
        self._order = 0

    def announce(self, name: str, data: dict[str, Any]) -> None:
        """Notes the requests that an event announces."""
        for model in self.models:
            if model.on.name == name:
                event = model.on
                at_ms = parse_time_ms(event.value(model.at, data), FIRST_MS) // self.step_ms * self.step_ms
                entities = {field: event.value(field, data) for field in model.request_fields}
                self._order += 1
                instance = {"subject": str(event.value(model.subject, data)), "entities": entities}
                heapq.heappush(self._waiting, Due(at_ms, self._order, model.name, instance))

    def due(self, time_ms: int) -> Iterator[Due]:
        """Takes out the predictions to ask for at or before a time."""
        while self._waiting and self._waiting[0].at_ms <= time_ms:
            yield heapq.heappop(self._waiting)


class Playback:
    """Publishes a recording's events and asks for its predictions. Made by `open_playback`."""

    def __init__(
        self, project: Project, link: RedisClient, client: AIOKafkaProducer, reader: AIOKafkaConsumer, groups: AIOKafkaAdminClient
    ) -> None:
        self.project = project
        self._link, self._producer, self._reader, self._admin = link, client, reader, groups
        self._group = ingestion_group(project.name)
        self._coordinator: int | None = None
        self._fences = {
            TopicPartition(view_topic(project.name, view.log), p): fence_key(project.name, view.log, p)
            for view in project.views.values()
            for p in range(view.partitions)
        }
        self._expectations = Expectations(project)

    async def publish(self, moments: Iterable[Moment]) -> dict[TopicPartition, int]:
        """Publishes events as an application would, each with the time when it became known. Returns the next offset of each partition
        written."""
        positions, _ = await self._publish(moments)
        return positions

    async def _publish(self, moments: Iterable[Moment]) -> tuple[dict[TopicPartition, int], list[Placed] | None]:
        """As `publish`; also the position of each event. None: somebody else wrote to the same partition meanwhile."""
        wave: dict[tuple[str, int], list[Record]] = defaultdict(list)
        sent: dict[tuple[str, int], list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for known_ms, name, data in moments:
            event = self.project.events.get(name)
            if event is None:
                raise TidemillError(
                    f"the recording has an event {name!r} that project {self.project.name!r} does not declare",
                    mend=f"yield one of {', '.join(self.project.events)}",
                )
            value = msgspec.json.encode(data)
            partition = zlib.crc32(value) % event.partitions
            wave[event.topic, partition].append((None, value, [*event.headers, ("ce_recordedtime", b"%d" % known_ms)]))
            sent[event.topic, partition].append((name, data))
        offsets = await send_wave(self._producer, wave)
        positions = {TopicPartition(*target): last + 1 for target, (_, last) in offsets.items()}
        if any(last - first + 1 != len(sent[target]) for target, (first, last) in offsets.items()):
            return positions, None
        first_of = {target: first for target, (first, _) in offsets.items()}
        return positions, [
            (name, target[1], first_of[target] + i, data) for target, events in sent.items() for i, (name, data) in enumerate(events)
        ]

    async def barrier(self, moments: Iterable[Moment]) -> None:
        """Publishes events and returns once all of them are applied. Raises TidemillError that names what lags."""
        positions, placed = await self._publish(moments)
        if placed is None or not await self._seen(placed):
            await self.routed(positions)
            await self.applied()

    async def _seen(self, placed: list[Placed]) -> bool:
        """Whether the fences soon show that these events are applied. They never show it of an event that was refused."""
        try:
            waiting: Expected = self._expectations.of(placed)
        except TypeError:
            return False
        deadline, pause = time.monotonic() + _PATIENCE_SECONDS, _FIRST_PAUSE_SECONDS
        while waiting and time.monotonic() < deadline:
            await asyncio.sleep(pause)
            waiting = lacking(waiting, await self._link.mget(list(waiting)))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return not waiting

    async def routed(self, positions: dict[TopicPartition, int], timeout_seconds: float = 60) -> None:
        """Waits until ingestion has routed everything below the positions. Raises TidemillError that names what lags."""

        async def lagging() -> str | None:
            committed = await self._committed(list(positions))
            for tp, offset in positions.items():
                if committed[tp] < offset:
                    return f"ingestion has not routed {tp.topic}[{tp.partition}] to {offset}"
            return None

        if positions:
            await _poll(lagging, timeout_seconds, mend="run: tidemill logs ingestion")

    async def _committed(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """The committed offsets of ingestion's group (-1: none, or its coordinator has moved or is starting). The coordinator is
        remembered, since finding it costs as much as asking it."""
        try:
            if self._coordinator is None:
                self._coordinator = await self._admin.find_coordinator(self._group)
            found = await self._admin.list_consumer_group_offsets(self._group, self._coordinator, partitions)
        except KafkaError as error:
            if not error.retriable:
                raise
            self._coordinator = None
            return dict.fromkeys(partitions, -1)
        return {tp: found[tp].offset if tp in found else -1 for tp in partitions}

    async def applied(self, timeout_seconds: float = 60) -> None:
        """Waits until the online store's fences have reached the ends of all view topics. Raises TidemillError that names what lags when no fence has
        moved for so long: a busy machine is no reason to give up."""
        ends = await self._ends(list(self._fences))
        waiting = {tp: end for tp, end in ends.items() if end}
        reached = 0

        async def lagging() -> str | None:
            nonlocal reached
            fences = await self._link.mget([self._fences[tp] for tp in waiting])
            reached = max(reached, sum(map(position, fences)) + sum(end for tp, end in ends.items() if tp not in waiting))
            for (tp, end), fence in zip(list(waiting.items()), fences, strict=True):
                if position(fence) < end:
                    return f"feature computation has not applied {tp.topic}[{tp.partition}] up to {end}"
                del waiting[tp]
            return None

        if waiting:
            await _poll(lagging, timeout_seconds, mend="run: tidemill logs features", reached=lambda: reached)

    async def ends(self) -> dict[TopicPartition, int]:
        """The next offset of every topic that the offline writer follows: those of the views and of the events."""
        events = [TopicPartition(event.topic, p) for event in self.project.events.values() for p in range(event.partitions)]
        return await self._ends([*self._fences, *events])

    async def _ends(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = await self._reader.end_offsets(partitions)
        return found

    async def load(self, recording: Recording, start_ms: int, end_ms: int, step_ms: int, agenda: Agenda) -> AsyncIterator[PlayedStep]:
        """Publishes history without predictions, each step while the one before is routed. Events of different partitions overtake each other by
        two steps at most.

        Requests announced for a time after `end_ms` stay on the agenda.
        """
        before = dict[TopicPartition, int]()
        for step_end, moments in steps(recording, start_ms, end_ms, step_ms):
            for _, name, data in moments:
                agenda.announce(name, data)
            published = await self.publish(moments)
            await self.routed(before)
            before = published
            yield PlayedStep(step_end, len(moments), [], 0.0)
        await self.routed(before)
        await self.applied()
        for _ in agenda.due(end_ms):
            continue

    async def play(
        self, recording: Recording, start_ms: int, end_ms: int, step_ms: int, agenda: Agenda, inference_url: str, speed: float | None = None
    ) -> AsyncIterator[PlayedStep]:
        """Plays from start to end; `speed` is event time over wall time (None: as fast as it goes)."""
        began = time.monotonic()
        with InferenceClient(inference_url) as http:
            upcoming = rounds(steps(recording, start_ms, end_ms, step_ms), agenda, gather=speed is None)
            following = next(upcoming, None)
            while following is not None:
                time_ms, moments, due = following
                if speed is not None:
                    await asyncio.sleep(began + (time_ms - start_ms) / 1000 / speed - time.monotonic())
                published = time.monotonic()
                if moments:
                    await self.barrier(moments)
                barrier_seconds = time.monotonic() - published
                asking = asyncio.create_task(_ask(http, due, time_ms))
                try:
                    if due:
                        await asyncio.sleep(_SENDING_SECONDS)
                    following = next(upcoming, None)  # inference computes meanwhile
                finally:
                    answers = await asking
                yield PlayedStep(time_ms, len(moments), answers, barrier_seconds)


async def _poll(
    lagging: Callable[[], Awaitable[str | None]], timeout_seconds: float, mend: str, reached: Callable[[], int] = lambda: 0
) -> None:
    """Asks what lags until nothing does. Raises TidemillError with the last answer when `reached` has not grown for so long."""
    deadline, pause, before = Deadline(timeout_seconds), _FIRST_PAUSE_SECONDS, 0
    while (message := await lagging()) is not None:
        if (now := reached()) > before:
            deadline, before = Deadline(timeout_seconds), now
        elif deadline.expired:
            raise TidemillError(message, mend=mend)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def _ask(http: InferenceClient, due: list[Due], time_ms: int) -> list[tuple[Due, dict[str, Any]]]:
    answers: list[tuple[Due, dict[str, Any]]] = []
    by_model: dict[str, list[Due]] = defaultdict(list)
    for item in due:
        by_model[item.model].append(item)
    for model, items in by_model.items():
        for i in range(0, len(items), _MOST_INSTANCES):
            part = items[i : i + _MOST_INSTANCES]
            instances = [{**item.instance, "time": time_ms, "id": f"{model}-{item.instance['subject']}-{time_ms}"} for item in part]
            body = msgspec.json.encode({"instances": instances, "features": False})
            found = await _post(http, f"/predict/{model}", body)
            for instance, answer in zip(instances, found, strict=True):
                if "error" in answer:
                    raise TidemillError(
                        f"inference refused prediction {instance['id']}: {answer['error']}", mend=answer.get("mend") or "mend the recording"
                    )
            answers += zip(part, found, strict=True)
    return answers


async def _post(http: InferenceClient, path: str, body: bytes, timeout_seconds: float = 60) -> list[dict[str, Any]]:
    """Asks inference, and again while it is away. The ids stay the same, so no prediction is made twice."""
    answer = 0, b""

    async def unanswered() -> str | None:
        nonlocal answer
        try:
            answer = await asyncio.to_thread(http.post, path, body)
        except Unavailable as error:
            return error.message
        return f"inference answered 503: {_begin(answer[1])}" if answer[0] == HTTPStatus.SERVICE_UNAVAILABLE else None

    await _poll(unanswered, timeout_seconds, mend="run: tidemill logs inference")
    status, content = answer
    if status >= HTTPStatus.BAD_REQUEST:
        mend = "train and deploy the model first" if status == HTTPStatus.NOT_FOUND else "run: tidemill logs inference"
        raise TidemillError(f"inference answered {status}: {_begin(content)}", mend=mend)
    predictions: list[dict[str, Any]] = msgspec.json.decode(content)["predictions"]
    return predictions


def _begin(content: bytes) -> str:
    return content[:500].decode(errors="replace")


def steps(recording: Recording, start_ms: int, end_ms: int, step_ms: int) -> Iterator[tuple[int, list[Moment]]]:
    """Cuts a recording into steps: (end of the step, events known in (end - step, end]), in order, empty steps included."""
    events = recording.events(start_ms, end_ms)
    waiting = next(events, None)
    for step_end in range(start_ms + step_ms, end_ms + step_ms, step_ms):
        moments: list[Moment] = []
        while waiting is not None and waiting[0] <= step_end:
            if moments and waiting[0] < moments[-1][0]:
                raise TidemillError(
                    f"recording {recording.name!r} is not in order of time: {waiting[1]} at {waiting[0]} comes after {moments[-1][0]}",
                    mend="yield events in order of the time they became known",
                )
            moments.append(waiting)
            waiting = next(events, None)
        yield min(step_end, end_ms), moments


def rounds(cut: Iterable[tuple[int, list[Moment]]], agenda: Agenda, *, gather: bool) -> Iterator[Round]:
    """What to publish, and then to ask for, at the end of each step. `cut`: as `steps` gives it; `agenda` gets the requests announced.

    With `gather`, the events of steps at whose end nothing is due wait for the next step, up to 1,000 of them. The last step ends a round.
    """
    waiting: list[Moment] = []
    open_until: int | None = None
    for time_ms, moments in cut:
        for _, name, data in moments:
            agenda.announce(name, data)
        waiting, due, open_until = waiting + moments, list(agenda.due(time_ms)), time_ms
        if due or not gather or len(waiting) >= _MOST_GATHERED:
            yield Round(time_ms, waiting, due)
            waiting, open_until = [], None
    if open_until is not None:
        yield Round(open_until, waiting, [])


@asynccontextmanager
async def open_playback(project: Project, bootstrap_servers: str, redis_url: str) -> AsyncIterator[Playback]:
    """Connects to a running stack. Raises KafkaUnavailable, also for errors that Kafka's client raises inside the block."""
    kafka = KafkaSettings(bootstrap_servers=bootstrap_servers)
    async with (
        redis_client(redis_url, timeout_seconds=5) as link,
        admin(kafka) as groups,
        started_producer(kafka) as client,
        started_consumer(kafka) as reader,
    ):
        yield Playback(project, link, client, reader, groups)
