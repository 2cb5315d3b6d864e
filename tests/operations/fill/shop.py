"""What the tests of filling share: a project in two stages, raw events with every kind of trouble, the fold that plain Python says, and a
stand-in for ingestion that follows the catalogue."""

from __future__ import annotations

import asyncio
import json
import random
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from tests.patience import PATIENCE_SECONDS

from tidemill.archive.columns import event_folder
from tidemill.archive.rows import event_table
from tidemill.catalogue.definitions import Definitions, project_of
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project, load_project
from tidemill.errors import UnknownTable
from tidemill.kafka.client import close_consumer, consumer, started_producer
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.reader import Reader
from tidemill.kafka.topics import offset_ranges
from tidemill.kafka.waves import send_wave
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.offline.store import OfflineStore, counter_name
from tidemill.routing.router import Router
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import Catalogue
from tidemill.streams.topics import ingestion_group, view_topic

T0 = 1_700_000_000_000
LOAD = "load:00ff"
PROJECT = """
from tidemill import Event, FeatureView, count, last, max, mean, sum
newest = max if {ahead!r} else last  # no event waits for a feature of an entity's whole life
PROJECT = {name!r}
fields = {{"at": int, "card": str | None, "amount": float, "no": str | None}}
if {later}:
    fields |= {{"tip": float | None}}
paid = Event("paid", fields, "at", topic={name!r} + ".paid", id="no", partitions=3, future="6h")
features = [count(), sum("amount"), newest("amount")] + ([mean("tip"), newest("tip")] if {later} else [])
cards = FeatureView("cards", paid, "card", features, windows=["1h", "24h"], partitions={partitions}, dedupe=4, ahead={ahead!r}, where={where!r})
"""


def declare(
    folder: Path, name: str, *, later: bool = False, ahead: str | None = None, partitions: int = 2, where: str | None = None
) -> Project:
    """The project, written down. `later`: the event has a tip too, and the view folds it; `ahead`: how far an event may lie ahead;
    `partitions`, `where`: of the view."""
    folder.mkdir(exist_ok=True)
    (folder / "project.py").write_text(PROJECT.format(name=name, later=later, ahead=ahead, partitions=partitions, where=where))
    return load_project(folder)


class Raw(NamedTuple):
    """An event as a publisher knows it, with its place."""

    topic: str
    partition: int
    offset: int
    known: int
    data: Mapping[str, Any]

    @property
    def value(self) -> bytes | None:
        """As it is published."""
        return json.dumps(self.data).encode()

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """With the moment when it became known."""
        return [("ce_recordedtime", str(self.known).encode())]

    @property
    def key(self) -> bytes:
        """Of its record."""
        return b"k"

    @property
    def timestamp(self) -> int:
        """Of its record."""
        return self.known


def raws(topic: str, partitions: int, each: int, seed: int, start_ms: int = T0) -> list[Raw]:
    """Events of every kind: late, ahead, doubled, without a key, with a field that is declared later; known out of the topic's order."""
    chance, found = random.Random(seed), list[Raw]()
    for partition in range(partitions):
        for offset in range(each):
            known = start_ms + offset * 60_000 + chance.randrange(-200_000, 200_000)
            at = known - chance.choice([0, 1000, 3_600_000, 100_000_000]) + chance.choice([0, 0, 0, 1_500_000, 4_000_000])
            number = chance.choice([f"{partition}-{offset}", f"{partition}-{max(offset - 1, 0)}", None])
            data = {"at": at, "card": chance.choice(["a", "b", "c", "d", None]), "amount": offset / 4 + partition, "no": number}
            if chance.random() < 0.5:
                data["tip"] = chance.choice([offset / 8, 3, None, "much"])
            found.append(Raw(topic, partition, offset, known, data))
    return found


def archive(store: OfflineStore, project: Project, events: Sequence[Raw]) -> None:
    """Writes events to the archive, as its writer does, each topic by itself. They follow those that are there."""
    by_topic: dict[str, dict[int, list[Raw]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        by_topic[event.topic][event.partition].append(event)
    for topic, read in by_topic.items():
        table = replace(event_table(project, project.events["paid"], _schema(store)), topic=topic)
        writer = store.topic_table(replace(table, topic=project.events["paid"].topic))
        writer.open()
        moves = {counter_name(topic, p): (part[0].offset, part[-1].offset + 1) for p, part in read.items()}
        done = {f"{topic}:done": (0, 1)} if topic == LOAD else {}  # of a file, all is loaded at once
        writer._table.append(table.rows_of(read), moves | done)  # the table's own `append` knows one topic


def _schema(store: OfflineStore) -> Any:
    try:
        return store.snapshot(event_folder("paid")).schema
    except UnknownTable:
        return None


def expected(view: FeatureView, events: Sequence[Raw]) -> dict[bytes, bytes]:
    """What the view's entities are after these events, one by one in the order in which they became known, by plain Python and the fold."""
    kernel, decode = ViewKernel(view), entry_decoder(view)
    folds = [PartitionFold.start(kernel) for _ in range(view.partitions)]
    states: dict[bytes, EntityState] = {}
    ordered = sorted(events, key=lambda event: (event.known, event.topic, event.partition, event.offset))
    for number, event in enumerate(ordered):
        card, at = event.data["card"], event.data["at"]
        if card is None or (view.ahead_ms is not None and at - event.known > view.ahead_ms):
            continue
        values = {name: event.data.get(name) for name in view.value_fields}
        values = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        at = at if view.ahead else min(at, event.known)
        record = {"time": at, "known": event.known, "source": [7, number], "values": values, "id": event.data["no"]}
        key = card.encode()
        folds[zlib.crc32(key) % view.partitions].advance([decode(number, key, json.dumps(record).encode())], states)
    return {key: kernel.encode(state) for key, state in states.items()}


async def folded(settings: KafkaSettings, project: str, view: FeatureView) -> tuple[dict[bytes, bytes], list[PartitionFold]]:
    """What the log of a view folds to, as Kafka has it, with the fold of each partition."""
    kernel, decode = ViewKernel(view), entry_decoder(view)
    folds, states = [PartitionFold.start(kernel) for _ in range(view.partitions)], dict[bytes, EntityState]()
    topic = view_topic(project, view.log)
    async with Reader(settings, {TopicPartition(topic, p): 0 for p in range(view.partitions)}) as reader:
        async for fetched in read_to_end(reader):
            for target, records in fetched.items():
                folds[target.partition].advance([decode(record.offset, record.key, record.value) for record in records], states)
    return {key: kernel.encode(state) for key, state in states.items()}, folds


async def publish(settings: KafkaSettings, events: Sequence[Raw]) -> None:
    """Writes events to their topic, whose offsets they follow."""
    wave: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for event in events:
        wave[event.topic, event.partition].append((b"k", event.value, event.headers))
    async with started_producer(settings) as made:
        await send_wave(made, wave)


async def commit(settings: KafkaSettings, project: Project, positions: Mapping[int, int]) -> None:
    """Says that ingestion has routed so far."""
    topic = project.events["paid"].topic
    member = consumer(settings, group=ingestion_group(project.name))
    await member.start()
    member.assign([TopicPartition(topic, p) for p in positions])
    await member.commit({TopicPartition(topic, p): position for p, position in positions.items()})
    await close_consumer(member)


@dataclass
class StandIn:
    """Ingestion as far as the catalogue is concerned: it routes by the newest catalogue, commits positions with the catalogue's number, and
    goes back where a log was handed over."""

    settings: KafkaSettings
    project: str
    topic: str
    partitions: int
    routed: int = 0
    numbers: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Routes until stopped, and then whatever is left."""
        member = consumer(self.settings, group=ingestion_group(self.project))
        await member.start()
        places = [TopicPartition(self.topic, p) for p in range(self.partitions)]
        member.assign(places)
        async with Catalogue(self.settings, self.project) as catalogue, started_producer(self.settings) as producer:
            now = catalogue.now
            await self._place(member, places, now)
            following = asyncio.create_task(self._follow(catalogue))
            while True:
                if catalogue.now.number != now.number:
                    now, self.numbers = catalogue.now, self.numbers + 1
                    await self._place(member, places, now)
                fetched = await member.getmany(timeout_ms=50, max_records=500)
                if not fetched and stop.is_set() and await self._at_end(member, places) and catalogue.now.number == now.number:
                    break
                await self._route(member, producer, now, fetched)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await close_consumer(member)

    async def _follow(self, catalogue: Catalogue) -> None:
        while True:
            await catalogue.changed()

    async def _at_end(self, member: AIOKafkaConsumer, places: list[TopicPartition]) -> bool:
        ends = await member.end_offsets(places)
        return all([await member.position(place) >= ends[place] for place in places])

    async def _place(self, member: AIOKafkaConsumer, places: list[TopicPartition], now: Definitions) -> None:
        for place in places:
            committed = await member.committed(place) or 0
            seen = await self._seen(member, place)
            member.seek(place, now.routed_from("paid", place.partition, committed, seen))

    async def _seen(self, member: AIOKafkaConsumer, place: TopicPartition) -> int:
        found = await member._coordinator.fetch_committed_offsets([place])
        return int(found[place].metadata or 0) if place in found else 0

    async def _route(self, member: AIOKafkaConsumer, producer: Any, now: Definitions, fetched: Mapping[TopicPartition, list[Any]]) -> None:
        project = project_of(now, self.project)
        router, wave = Router(project, now.begins), dict[tuple[str, int], list[Any]]()
        for place, records in fetched.items():
            for record in records:
                for topic, partition, key, value in router.route(
                    place.topic, place.partition, record.offset, record.timestamp, record.key, record.value, record.headers
                ):
                    if ".view." in topic:
                        wave.setdefault((topic, partition), []).append((key, value, []))
            self.routed += len(records)
        await send_wave(producer, wave)
        if fetched:
            await member.commit({place: OffsetAndMetadata(part[-1].offset + 1, str(now.number)) for place, part in fetched.items()})


@asynccontextmanager
async def routing(ingestion: StandIn) -> AsyncIterator[StandIn]:
    """The stand-in, running inside `with`; at the end it routes everything that is left."""
    stop = asyncio.Event()
    task = asyncio.create_task(ingestion.run(stop))
    try:
        yield ingestion
    finally:
        stop.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)


async def ends(settings: KafkaSettings, topic: str) -> dict[int, int]:
    """The next offset of each partition of a topic."""
    return {target.partition: held.end for target, held in (await offset_ranges(settings, topic)).items()}
