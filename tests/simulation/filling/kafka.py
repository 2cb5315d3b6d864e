"""The broker of a whole project, and clients of it in the place of aiokafka's: producers that number their batches, and members of a group.

Below them is the product's code as it is: `Reader`, `Catalogue`, `append_definitions`, `EventConsumer`, `Fill`, `ArchiveWriter`. Modelled is
what Kafka and aiokafka do: a batch that comes again is written once; a request that nobody waits for any longer may take effect later; who
is assigned partitions, even the same as before, goes on from what the group has committed, unless it seeks; a commit counts only for a
member of the present generation. The broker itself loses nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaConnectionError, NoOffsetForPartitionError
from faust.types import TP
from tests.simulation.broker import Broker, Client, Log, Row
from tests.simulation.filling.project import NAME, PAID
from tests.simulation.lake import Reading
from tests.simulation.loop import SimLoop
from tests.simulation.workers import Group

from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import OffsetRange
from tidemill.kafka.waves import Record
from tidemill.names import LogName
from tidemill.streams.topics import catalogue_topic, view_topic

Wave = Mapping[tuple[str, int], Sequence[Record]]
Committed = tuple[int, str]
"""An offset, and the text that was committed beside it."""

AGAIN_SECONDS = 0.2


class Cluster(Broker):
    """All topics. `committed`: the offsets of ingestion's group; `written(tp, row)` is called for each record; `now_ms`: the broker's clock."""

    def __init__(self, draw: random.Random, now_ms: Callable[[], int]) -> None:
        super().__init__(PAID.topic, PAID.partitions, draw)
        self.create({catalogue_topic(NAME): 1})
        self.committed: dict[TP, Committed] = {}
        self.written: Callable[[TP, Row], None] = lambda tp, row: None
        self.producers = 0
        self._now_ms = now_ms
        self._batches: dict[tuple[int, TP, int], tuple[int, int]] = {}

    def create(self, topics: Mapping[str, int]) -> None:
        """Make the topics that are missing; each with its number of partitions."""
        for topic, count in topics.items():
            for number in range(count):
                self.logs.setdefault(TP(topic, number), Log(TP(topic, number)))

    def of_topic(self, topic: str) -> list[TP]:
        """The partitions of a topic."""
        return [tp for tp in self.logs if tp.topic == topic]

    def ranges(self, topics: Collection[str]) -> dict[TopicPartition, OffsetRange]:
        """What the partitions of topics hold."""
        found = [(tp, self.logs[tp]) for topic in topics for tp in self.of_topic(topic)]
        return {TopicPartition(*tp): OffsetRange(log.start, log.end) for tp, log in found}

    def append(self, tp: TP, key: bytes | None, value: bytes | None) -> Row:
        """Write a record."""
        row = self.logs[tp].append(key or b"", value or b"")
        row.timestamp = self._now_ms()
        self.written(tp, row)
        return row

    def write(self, producer: int, tp: TP, number: int, records: Sequence[Record]) -> tuple[int, int]:
        """One batch of an idempotent producer; first and last offset. One with a number that was written is not written again."""
        batch = (producer, tp, number)
        if batch not in self._batches:
            offsets = [self.append(tp, key, value).offset for key, value, _ in records]
            self._batches[batch] = offsets[0], offsets[-1]
        return self._batches[batch]


class KafkaProcess(Reading):
    """A process with clients of Kafka. It stands where the product has KafkaSettings, so that each client belongs to its process."""

    broker: Cluster
    bootstrap_servers = "simulated"

    def __init__(self, loop: SimLoop, draw: random.Random, name: str, broker: Cluster, group: Group) -> None:
        super().__init__(loop, draw, name)
        self.broker, self.group = broker, group
        self.note: Callable[..., None] = lambda *step: None

    async def kafka(self, effect: Callable[..., Any], *args: Any) -> Any:
        """One request to the broker. Raises KafkaUnavailable."""
        try:
            return await self.ask(self.broker.link, effect, *args)
        except KafkaConnectionError as error:
            raise KafkaUnavailable(str(error), mend="") from error


class Producer:
    """An idempotent producer: it sends a batch again, under its number, until it is acknowledged."""

    def __init__(self, process: KafkaProcess) -> None:
        self._process = process
        process.broker.producers += 1
        self._id = process.broker.producers
        self._numbers: dict[TP, int] = {}

    async def send(self, tp: TP, records: Sequence[Record]) -> tuple[int, int]:
        """Write records of one partition; returns the first and the last offset."""
        number = self._numbers[tp] = self._numbers.get(tp, 0) + 1
        while True:
            try:
                broker = self._process.broker
                offsets: tuple[int, int] = await self._process.ask(broker.link, broker.write, self._id, tp, number, records)
                return offsets
            except KafkaConnectionError:
                await asyncio.sleep(AGAIN_SECONDS)


async def send_wave(producer: Producer, wave: Wave) -> dict[tuple[str, int], tuple[int, int]]:
    """See `waves.send_wave`."""
    parts = {TP(*target): records for target, records in wave.items() if records}
    offsets = await asyncio.gather(*(producer.send(tp, records) for tp, records in parts.items()))
    return dict(zip(parts, offsets, strict=True))


async def start_producer(process: KafkaProcess) -> Producer:
    """See `client.start_producer`."""
    await process.kafka(int)
    return Producer(process)


async def close_producer(producer: Producer, timeout_seconds: float = 0.0) -> None:
    """What is under way goes its way."""


@asynccontextmanager
async def started_producer(process: KafkaProcess) -> AsyncIterator[Producer]:
    """See `client.started_producer`."""
    yield await start_producer(process)


async def ensure_topics(process: KafkaProcess, specs: Mapping[str, TopicSpec]) -> None:
    """See `topics.ensure_topics`."""
    await process.kafka(process.broker.create, {topic: spec.partitions for topic, spec in specs.items()})


async def offset_ranges(process: KafkaProcess, *topics: str) -> dict[TopicPartition, OffsetRange]:
    """See `topics.offset_ranges`."""
    found: dict[TopicPartition, OffsetRange] = await process.kafka(process.broker.ranges, topics)
    return found


async def committed(process: KafkaProcess, group: str) -> dict[TopicPartition, int]:
    """See `topics.committed`."""
    found: dict[TP, Committed] = await process.kafka(process.broker.committed.copy)
    return {TopicPartition(*tp): offset for tp, (offset, _) in found.items()}


async def existing_logs(process: KafkaProcess, project: Project) -> dict[LogName, bool]:
    """See `view_logs.existing_logs`."""
    prefix = view_topic(project.name, LogName(""))
    ends: dict[TP, int] = await process.kafka(lambda: {tp: log.end for tp, log in process.broker.logs.items()})
    logs: dict[LogName, bool] = {}
    for tp, end in ends.items():
        log = LogName(tp.topic.removeprefix(prefix))
        if tp.topic.startswith(prefix):
            logs[log] = logs.get(log, False) or end > 0
    return logs


async def committed_with_metadata(consumer: GroupConsumer, partitions: Collection[TP]) -> dict[TP, Committed]:
    """See `patches.committed_with_metadata`."""
    return await consumer.committed(partitions)


def assignment_of(consumer: GroupConsumer) -> object:
    """See `patches.assignment_of`."""
    return consumer.assignment()


class GroupConsumer:
    """As much of an AIOKafkaConsumer in a group as `EventConsumer` uses, and a member of the simulated group.

    As in aiokafka a rebalance goes on beside the work: the partitions stay assigned until others are, a wave in work is finished, and its
    commit is refused if another generation has begun.
    """

    def __init__(self, process: KafkaProcess, *topics: str, **_how_it_fetches: object) -> None:
        self._process = process
        self._client = Client(process, process.broker)
        self._assigned = frozenset[TP]()
        self._closed = False
        self.generation = 0

    # What the group sees

    @property
    def alive(self) -> bool:
        """Whether its heart beats."""
        return self._process.alive and not self._closed

    @property
    def frozen_until(self) -> float:
        """See `Process`."""
        return self._process.frozen_until

    def spawn(self, work: Any) -> asyncio.Task[None]:
        """See `Process`."""
        return self._process.spawn(work)

    async def revoke(self, generation: int) -> None:
        """A rebalance begins; nobody waits for the work."""

    async def assign(self, generation: int, partitions: set[TP]) -> None:
        """A rebalance ends: no partition has a position."""
        await self._process._stands()
        if generation == self._process.group.generation:
            self.generation, self._assigned = generation, frozenset(partitions)
            self._client = Client(self._process, self._process.broker)

    # What the product sees

    async def start(self) -> None:
        """Joins."""
        await self._process.ask(self._process.broker.link, int)
        self._process.group.join(self)

    async def stop(self) -> None:
        """Leaves; when the broker does not hear of it, the session runs out."""
        self._closed = True
        await self._process.ask(self._process.broker.link, self._process.group.leave, self)

    def assignment(self) -> frozenset[TP]:
        """The partitions."""
        return self._assigned

    async def beginning_offsets(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Where they begin."""
        return (await self._bounds(partitions))[0]

    async def end_offsets(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Where they end."""
        return (await self._bounds(partitions))[1]

    async def _bounds(self, partitions: Collection[TP]) -> tuple[dict[TP, int], dict[TP, int]]:
        found: tuple[dict[TP, int], dict[TP, int]] = await self._ask(self._process.broker.held, partitions)
        return found

    async def committed(self, partitions: Iterable[TP]) -> dict[TP, Committed]:
        """What the group has committed."""
        found: dict[TP, Committed] = await self._ask(self._process.broker.committed.copy)
        return {tp: found[tp] for tp in partitions if tp in found}

    def seek(self, tp: TP, offset: int) -> None:
        """From where on."""
        self._mine(tp)
        self._process.note(self._process.name, "goes to", tp.partition, str(offset))
        self._client.at[tp] = offset

    async def position(self, tp: TP) -> int:
        """The offset of the next record."""
        self._mine(tp)
        await self._place()
        return self._client.at[tp]

    def highwater(self, tp: TP) -> int | None:
        """Where a partition ends, as far as is known without a question."""
        self._mine(tp)
        return None

    async def getmany(self, *partitions: TP, timeout_ms: int, max_records: int) -> dict[TP, list[Row]]:
        """What has come."""
        await self._place()
        client = self._client
        placed = {tp for tp in self._assigned if tp in client.at and (not partitions or tp in partitions)}
        if not placed:
            await asyncio.sleep(timeout_ms / 1000)
            return {}
        found = await client.fetch(placed, timeout_ms / 1000)
        return found if client is self._client else {}

    async def commit(self, offsets: Mapping[TP, Committed]) -> None:
        """Raises CommitFailedError in another generation."""
        for tp in offsets:
            self._mine(tp)
        await self._ask(self._commit, self.generation, offsets)

    def _commit(self, generation: int, offsets: Mapping[TP, Committed]) -> None:
        if generation != self._process.group.generation or self not in self._process.group.members:
            raise CommitFailedError("another generation")
        self._process.broker.committed |= offsets
        for tp, (offset, number) in offsets.items():
            self._process.note(self._process.name, f"commits by record {number} of the catalogue", tp.partition, str(offset))

    async def _place(self) -> None:
        """Partitions without a position go to the committed one."""
        client = self._client
        if missing := [tp for tp in self._assigned if tp not in client.at]:
            found = await self.committed(missing)
            for tp in missing:
                if tp not in found:
                    raise NoOffsetForPartitionError(tp)
                client.at.setdefault(tp, found[tp][0])

    def _mine(self, tp: TP) -> None:
        if tp not in self._assigned:
            raise IllegalStateError(f"{tp} is not assigned")

    async def _ask(self, effect: Callable[..., Any], *args: Any) -> Any:
        return await self._process.ask(self._process.broker.link, effect, *args)
