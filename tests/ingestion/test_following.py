"""Ingestion follows the catalogue while events arrive: a version that is handed over has every event, once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import TopicPartition
from tests.beside import beside
from tests.ingestion.log_tools import read_log
from tests.patience import PATIENCE_SECONDS

from tidemill import Event, FeatureView, count, sum
from tidemill.archive.view_records import FILL, NO_HEADERS
from tidemill.catalogue.definitions import Definitions, ViewVersion, project_of
from tidemill.declarations.project import Project
from tidemill.declarations.written import write_event, write_view
from tidemill.kafka.admin import admin
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.kafka.waves import Record, send_wave
from tidemill.local.processes import free_port
from tidemill.records import ViewRecord, encode
from tidemill.routing.router import Router
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import append_definitions
from tidemill.streams.following import in_force
from tidemill.streams.topics import ingestion_group, topic_specs, view_topic
from tidemill_ingestion import consumer
from tidemill_ingestion.consumer import EventConsumer

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PROJECT = """
from tidemill import Event, FeatureView, count

PROJECT = {name!r}
trip = Event("trip", {{"taxi": str, "at": int, "miles": float}}, "at", topic="{name}.in.trip", partitions=2)
taxis = FeatureView("taxis", trip, "taxi", [count()], windows=["1h"], partitions=2)
"""


class Town:
    """A project whose view gets a second version. `sent`: the events of each partition, as plain Python has them."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self.settings, self.name = settings, name
        self.trip = Event("trip", {"taxi": str, "at": int, "miles": float}, "at", topic=f"{name}.in.trip", partitions=2)
        self.first = FeatureView("taxis", self.trip, "taxi", [count()], windows=["1h"], partitions=2)
        self.second = FeatureView("taxis", self.trip, "taxi", [count(), sum("miles")], windows=["1h"], partitions=3)
        self.declared = Project(name, {"trip": self.trip}, {"taxis": self.first})
        self.now = Definitions(1, 5, (write_event(self.trip),), (ViewVersion(write_view(self.first), 1, {}),), {"taxis": 1})
        self.sent: dict[int, list[dict[str, Any]]] = {0: [], 1: []}

    async def begin(self) -> None:
        """The topics, and the first record of the catalogue."""
        await ensure_topics(self.settings, topic_specs(self.declared))
        await append_definitions(self.settings, self.name, self.now)

    async def send(self, events: int) -> None:
        """Publish some events on each partition."""
        wave: dict[tuple[str, int], list[Record]] = {}
        for partition, sent in self.sent.items():
            new = [{"taxi": f"t{random.randrange(9)}", "at": 1_790_000_000_000 + len(sent) + n, "miles": 1.5} for n in range(events)]
            sent.extend(new)
            wave[self.trip.topic, partition] = [(None, json.dumps(event).encode(), []) for event in new]
        async with started_producer(self.settings) as made:
            await send_wave(made, wave)

    @property
    def filling(self) -> Definitions:
        """The catalogue while the second version is filled."""
        version = ViewVersion(write_view(self.second), 2)
        return Definitions(2, 6, self.now.events, (self.now.views[0], version), {"taxis": 1})

    async def fill(self, filling: Definitions, until: dict[int, int]) -> Definitions:
        """Write the new log up to these positions, as a filler does. Returns the record that hands it over."""
        after = filling.handed_over("taxis", 2, until, 7)
        project = in_force(after, self.declared).project
        view = project.views["taxis@v2"]
        alone = Project(self.name, project.events, {view.name: view})
        await ensure_topics(self.settings, {name: spec for name, spec in topic_specs(alone).items() if name.endswith(str(view.log))})
        router, wave = Router(alone), dict[tuple[str, int], list[Record]]()
        for (topic, partition), records in (await read_log(self.settings, self.trip.topic)).items():
            for r in records[: until[partition]]:
                for out, number, key, value in router.route(topic, partition, r.offset, r.timestamp, r.key, r.value, r.headers):
                    wave.setdefault((out, number), []).append((key, value, []))
        async with started_producer(self.settings) as made:
            await send_wave(made, wave)
        return after

    async def hand_over(self) -> Definitions:
        """Fill the new log with half of the events, and hand it over: members have routed more, without it."""
        await append_definitions(self.settings, self.name, self.filling)
        ends = await offset_ranges(self.settings, self.trip.topic)
        after = await self.fill(self.filling, {partition: found.end // 2 for (_, partition), found in ends.items()})
        await append_definitions(self.settings, self.name, after)
        return after

    async def held(self, log: str) -> dict[int, list[tuple[int, str]]]:
        """Offset and key of what a log says of each partition of the event's topic, in order, after skipping what was sent twice."""
        found: dict[int, list[tuple[int, str]]] = {0: [], 1: []}
        for records in (await read_log(self.settings, f"{self.name}.view.{log}")).values():
            last = {0: -1, 1: -1}
            for record in records:
                partition, offset = json.loads(record.value)["source"]
                if offset > last[partition]:
                    last[partition] = offset
                    found[partition].append((offset, record.key.decode()))
        return {partition: sorted(items) for partition, items in found.items()}

    async def archived_up_to(self, filling: Definitions, version: int, until: dict[int, int]) -> Definitions:
        """Write the log of a version up to these positions from the archive, and hand it over. Returns the record that does."""
        after = filling.handed_over("taxis", version, until, 7)
        log = after.version("taxis", version).log
        archived = [event["taxi"].encode() for partition, sent in self.sent.items() for event in sent[: until[partition]]]
        records = [(taxi, encode(ViewRecord(5, 5, (FILL, n), {})), NO_HEADERS) for n, taxi in enumerate(archived)]
        await ensure_topics(
            self.settings, {view_topic(self.name, log): topic_specs(project_of(after, self.name))[view_topic(self.name, log)]}
        )
        async with started_producer(self.settings) as made:
            await send_wave(made, {(view_topic(self.name, log), 0): records})
        await append_definitions(self.settings, self.name, filling)
        await append_definitions(self.settings, self.name, after)
        return after

    async def counted(self, log: str) -> Counter[str]:
        """The events of each taxi that a log has, after skipping what was sent twice under one source."""
        found = Counter[str]()
        for records in (await read_log(self.settings, f"{self.name}.view.{log}")).values():
            sources = {(*json.loads(record.value)["source"], record.key.decode()) for record in records}
            found.update(taxi for *_, taxi in sources)
        return found

    async def has_counted(self, log: str) -> None:
        """Assert that a log has every event soon, and stays so: each once, from the archive or from its topic."""
        wanted = Counter(event["taxi"] for sent in self.sent.values() for event in sent)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await self.counted(log)).total() < wanted.total():
                    await asyncio.sleep(0.2)
        assert await self.counted(log) == wanted

    async def differing(self, log: str) -> dict[int, tuple[list[int], list[int]]]:
        """For each partition of the event's topic the offsets of which a log says nothing, and those of which it says something else."""
        found: dict[int, tuple[list[int], list[int]]] = {}
        for partition, held in (await self.held(log)).items():
            wanted = Counter((n, event["taxi"]) for n, event in enumerate(self.sent[partition]))
            if wanted != Counter(held):
                found[partition] = sorted(n for n, _ in wanted - Counter(held)), sorted(n for n, _ in Counter(held) - wanted)
        return found

    async def has_all(self, log: str) -> None:
        """Assert that a log has every event soon, once and in its order."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await self.differing(log):
                    await asyncio.sleep(0.5)
        assert await self.differing(log) == {}


@pytest.fixture
async def town(kafka: str, topic_prefix: str) -> Town:
    """A town with a catalogue."""
    made = Town(KafkaSettings(bootstrap_servers=kafka), topic_prefix)
    await made.begin()
    return made


Start = Callable[[], tuple[subprocess.Popen[bytes], str]]


@pytest.fixture
def start(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Start]:
    """Starts members as processes; returns each with its address."""
    (tmp_path / "project.py").write_text(PROJECT.format(name=topic_prefix))
    members, taken = list[subprocess.Popen[bytes]](), set[int]()

    def started() -> tuple[subprocess.Popen[bytes], str]:
        port = free_port(taken)
        own = {"TIDEMILL_PORT": str(port), "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services:{ROOT}", "KAFKA_BOOTSTRAP_SERVERS": kafka}
        with (tmp_path / f"{len(members)}.log").open("wb") as out:
            command = [sys.executable, "-m", "tidemill_ingestion"]
            members.append(subprocess.Popen(command, env={**os.environ, **own, "TIDEMILL_PROJECT": str(tmp_path)}, stderr=out, stdout=out))
        return members[-1], f"http://127.0.0.1:{port}"

    yield started
    for member in members:
        member.kill()
        member.wait()


async def test_handed_over_at_full_pace_while_members_die(town: Town, start: Start) -> None:
    """Two members, killed and started again before, during and after the hand-over: the new log and the old one have every event once."""
    members = [start()[0], start()[0]]
    sending = True

    async def send() -> None:
        while sending:
            await town.send(200)
            await asyncio.sleep(0.05)

    traffic = asyncio.create_task(send())
    await asyncio.sleep(8)
    handing = asyncio.create_task(town.hand_over())
    for _ in range(4):
        await asyncio.sleep(random.uniform(0.2, 3))
        number = random.randrange(2)
        members[number].send_signal(signal.SIGKILL)
        members[number] = start()[0]
    await handing
    await asyncio.sleep(3)
    sending = False
    await traffic
    await town.has_all("taxis.v2.p3")
    await town.has_all("taxis.p2")


@asynccontextmanager
async def member(town: Town, definitions: Definitions) -> AsyncIterator[EventConsumer]:
    """A member of the group that knows this catalogue."""
    now = in_force(definitions, town.declared)
    async with EventConsumer(town.settings, now.project, definitions=now.definitions) as routing:
        task = asyncio.create_task(routing.run())
        try:
            yield routing
        finally:
            routing.stop()
            await task


async def assigned(routing: EventConsumer, partitions: int) -> None:
    """Wait until a member has so many partitions."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(routing.kafka.assignment()) != partitions or routing.kafka.assignment() != set(routing.positions):
            await asyncio.sleep(0.1)


async def test_members_of_both_catalogues_side_by_side(town: Town) -> None:
    """A member that does not know the new version takes over from one that does, and back: what it left out is routed again."""
    async with member(town, town.now):
        await town.send(100)
        await town.has_all("taxis.p2")
    after = await town.hand_over()
    async with member(town, town.now) as old:
        async with member(town, after) as new:
            await assigned(new, 1)
            await town.send(100)
            await town.has_all("taxis.p2")
        await assigned(old, 2)
        await town.send(100)
        await town.has_all("taxis.p2")
    async with member(town, after):
        await town.has_all("taxis.v2.p3")
        await town.send(10)
        await town.has_all("taxis.v2.p3")
        await has_committed(town, 310, after.number)


async def has_routed(routing: EventConsumer, position: int) -> None:
    """Wait until a member has routed all its partitions so far, and committed it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not routing.positions or set(routing.positions.values()) != {position}:
            await asyncio.sleep(0.1)


async def test_a_partition_that_comes_while_a_member_reads(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that lasts over a rebalance has events of a partition that a member without the new version had: what that one left out is
    routed again."""
    monkeypatch.setattr(consumer, "POLL_MS", 10_000)
    async with EventConsumer(town.settings, town.declared, definitions=town.now) as old, beside(old.run()):
        await town.send(100)
        await has_routed(old, 100)
    after = await town.hand_over()
    known = in_force(after, town.declared).project
    async with EventConsumer(town.settings, known, definitions=after) as new, beside(new.run()):
        await has_routed(new, 100)
        async with EventConsumer(town.settings, town.declared, definitions=town.now) as old:
            async with beside(old.run()):
                await assigned(old, 1)
                await town.send(100)
                await has_routed(old, 200)
            await town.send(100)
        await assigned(new, 2)
        await town.has_all("taxis.v2.p3")
        await town.has_all("taxis.p2")


async def test_the_same_partitions_after_another_member_had_one(town: Town) -> None:
    """While a member stands still, one without the new version has one of its partitions: what that one left out is routed again."""
    async with member(town, town.now):
        await town.send(100)
        await town.has_all("taxis.p2")
    after = await town.hand_over()
    async with EventConsumer(town.settings, in_force(after, town.declared).project, definitions=after) as new:
        async with beside(new.run()):
            await town.has_all("taxis.v2.p3")
        async with member(town, town.now) as old:
            await assigned(old, 1)
            await town.send(100)
            await has_routed(old, 200)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(new.kafka.assignment()) != 2:
                await asyncio.sleep(0.1)
        async with beside(new.run()):
            await town.has_all("taxis.v2.p3")
            await town.has_all("taxis.p2")


async def has_committed(town: Town, position: int, number: int) -> None:
    """Wait until the group has committed this position for both partitions, with the number of the catalogue beside it."""
    async with admin(town.settings) as client, asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = await client.list_consumer_group_offsets(ingestion_group(town.name))
            if [(at.offset, at.metadata) for tp, at in found.items() if isinstance(tp, TopicPartition)] == [(position, str(number))] * 2:
                return
            await asyncio.sleep(0.1)


async def test_going_back_for_one_log_doubles_nothing_in_another(town: Town) -> None:
    """A version is handed over further back than one that was filled from the archive: both have every event once."""
    async with member(town, town.now):
        await town.send(100)
        await town.has_all("taxis.p2")
    second = await town.archived_up_to(town.filling, 2, {0: 80, 1: 60})
    async with member(town, second):
        await town.has_all("taxis.p2")
        await town.has_counted("taxis.v2.p3")
    third = ViewVersion(write_view(town.second), 3)
    filling = msgspec.structs.replace(second, number=second.number + 1, views=(*second.views, third))
    after = await town.archived_up_to(filling, 3, {0: 20, 1: 0})
    async with member(town, after):
        await town.has_counted("taxis.v3.p3")
        await town.send(10)
        for log in ("taxis.v3.p3", "taxis.v2.p3"):
            await town.has_counted(log)
        await town.has_all("taxis.p2")


async def test_a_version_that_is_being_filled_gets_nothing(town: Town) -> None:
    """Its log is the filler's alone."""
    assert list(in_force(town.filling, town.declared).project.views) == ["taxis"]


async def test_a_new_event_is_read_without_restart(town: Town, start: Start) -> None:
    """The catalogue brings an event and its view: events come in over HTTP and Kafka, and the process is the same."""
    process, url = start()
    await town.send(20)
    await town.has_all("taxis.p2")
    paid = Event("paid", {"shop": str, "at": int}, "at", topic=f"{town.name}.in.paid", partitions=2)
    shops = ViewVersion(write_view(FeatureView("shops", paid, "shop", [count()], partitions=1)), 1, {}, 2)
    after = Definitions(2, 6, (*town.now.events, write_event(paid)), (*town.now.views, shops), {"taxis": 1, "shops": 1})
    async with httpx.AsyncClient(base_url=url, timeout=180, trust_env=False) as client:
        body = {"type": "paid", "data": {"shop": "s", "at": 1_790_000_000_000}}
        assert (await client.post("/events", json=body)).status_code == 422
        await append_definitions(town.settings, town.name, after)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await client.post("/events", json=body)).status_code != 200:
                await asyncio.sleep(0.5)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any((await read_log(town.settings, f"{town.name}.view.shops.p1")).values()):
                await asyncio.sleep(0.5)
    await town.send(20)
    await town.has_all("taxis.p2")
    assert process.poll() is None
