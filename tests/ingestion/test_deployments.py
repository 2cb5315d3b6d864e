"""Another declaration comes with a restart: what is declared is read, whatever the group's members were assigned before."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError
from tests.ingestion.log_tools import expected, make_topics, publish, told, wait_routed
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations.project import Project, load_project
from tidemill.errors import UnreadPartitions
from tidemill.kafka.client import close_consumer, consumer
from tidemill.local.services import SERVICES
from tidemill.local.stack import External, Stack
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.topics import ingestion_group
from tidemill_ingestion.consumer import EventConsumer
from tidemill_ingestion.watch import IngestionWatch

pytestmark = pytest.mark.integration

INGESTION = next(service for service in SERVICES if service.name == "ingestion")
DECLARED = """
from tidemill import Event, FeatureView, count

PROJECT = {name!r}
"""
EVENT = """
{event} = Event("{event}", {{"who": str, "at": int}}, time="at", topic="{name}.in.{event}", partitions=2)
by_{event} = FeatureView("by_{event}", {event}, "who", [count()], windows=["1h"], partitions=2)
"""


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    """The session's broker."""
    return KafkaSettings(bootstrap_servers=kafka)


class Declared:
    """A project whose events change: those that are named exist."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        folder.mkdir()

    def with_events(self, *events: str) -> Project:
        """Write the project down, with one view for each of these events."""
        text = DECLARED.format(name=self.name) + "".join(EVENT.format(event=event, name=self.name) for event in events)
        (self.folder / "project.py").write_text(text)
        return load_project(self.folder)


@pytest.fixture
def declared(tmp_path: Path, topic_prefix: str) -> Declared:
    """A project of its own."""
    return Declared(tmp_path / "project", topic_prefix)


@pytest.fixture
def stack(kafka: str, declared: Declared, tmp_path: Path) -> Iterator[Stack]:
    """Ingestion of that project as it is first declared, as a process."""
    declared.with_events("paid", "sold")
    with Stack(tmp_path / "stack", project=str(declared.folder), services=(INGESTION,), external=External(kafka=kafka)) as made:
        yield made


def happened(count: int, start: int = 0) -> list[dict[str, object]]:
    """Some events."""
    return [{"who": f"w{n % 7}", "at": 1_790_000_000_000 + n} for n in range(start, start + count)]


async def all_routed(settings: KafkaSettings, project: Project) -> None:
    """Assert that everything published is routed soon, as the router says."""
    await wait_routed(settings, project, PATIENCE_SECONDS)
    assert await told(settings, project) == await expected(settings, project)


@pytest.mark.parametrize("events", [("paid", "sold", "moved"), ("paid",), ("moved", "sold")], ids=["added", "removed", "both"])
async def test_events_change_with_a_restart(stack: Stack, declared: Declared, settings: KafkaSettings, events: tuple[str, ...]) -> None:
    """An ordinary deployment: events come and go while Kafka runs on, and within seconds all that are declared are read."""
    before = load_project(declared.folder)
    await publish(settings, before, "paid", happened(20))
    await all_routed(settings, before)
    project = declared.with_events(*events)
    await asyncio.to_thread(stack.restart, "ingestion")
    for event in events:
        await publish(settings, project, event, happened(20, 100))
    await all_routed(settings, project)
    async with httpx.AsyncClient(base_url=stack.urls["ingestion"], timeout=180, trust_env=False) as client:
        answer = await client.post("/events", json={"type": events[0], "data": happened(1, 200)[0]})
        assert answer.status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
    await all_routed(settings, project)


@asynccontextmanager
async def running(settings: KafkaSettings, project: Project, member: str) -> AsyncIterator[EventConsumer]:
    """One instance, under a name that it keeps."""
    async with EventConsumer(settings, project, member) as routing:
        task = asyncio.create_task(routing.run())
        try:
            yield routing
        finally:
            routing.stop()
            await task


@pytest.mark.parametrize(("old", "new"), [(("paid",), ("paid", "sold")), (("paid", "sold"), ("sold",)), (("paid",), ("sold",))])
async def test_two_versions_side_by_side(declared: Declared, settings: KafkaSettings, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """A rolling deployment: the instances declare different events for a while, and each event is read by one that declares it."""
    before = declared.with_events(*old)
    await make_topics(settings, before)
    async with running(settings, before, "one"):
        await publish(settings, before, old[0], happened(10))
        after = declared.with_events(*new)
        await make_topics(settings, after)
        async with running(settings, after, "two") as second:
            for event in new:
                await publish(settings, after, event, happened(10, 100))
            await all_routed(settings, after)
            await all_routed(settings, before)
            assert {partition.topic for partition in second.kafka.assignment()} <= {e.topic for e in after.events.values()}
    async with running(settings, after, "one"), running(settings, after, "two"):
        for event in new:
            await publish(settings, after, event, happened(10, 200))
        await all_routed(settings, after)


@pytest.mark.parametrize("events", [("paid", "sold", "moved"), ("paid",), ("moved", "sold")], ids=["added", "removed", "both"])
async def test_back_before_its_absence_is_noticed(declared: Declared, settings: KafkaSettings, events: tuple[str, ...]) -> None:
    """The group still knows the member by its name when it returns with other events: it must not get its old partitions back."""
    before = declared.with_events("paid", "sold")
    await make_topics(settings, before)
    async with running(settings, before, "one"):
        await publish(settings, before, "paid", happened(10))
        await all_routed(settings, before)
    after = declared.with_events(*events)
    await make_topics(settings, after)
    async with running(settings, after, "one") as routing:
        for event in events:
            await publish(settings, after, event, happened(10, 100))
        await all_routed(settings, after)
        assert {partition.topic for partition in routing.kafka.assignment()} == {event.topic for event in after.events.values()}


class Forgetful(RoundRobinPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """Shares out nothing the first time that there are two members, as a leader that has not heard of a topic yet."""

    times = 0

    @classmethod
    def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The assignment by member."""
        shared: dict[str, ConsumerProtocolMemberAssignment] = super().assign(cluster, members)
        if len(members) < 2 or cls.times:
            return shared
        cls.times += 1
        return {member: ConsumerProtocolMemberAssignment(cls.version, [], b"") for member in members}


async def test_partitions_that_nobody_reads(declared: Declared, settings: KafkaSettings) -> None:
    """They make the service unready, their events show as lag, and the group is to be joined anew, after which they are read."""
    project = declared.with_events("paid")
    (event,) = project.events.values()
    await make_topics(settings, project)
    await publish(settings, project, "paid", happened(9))
    leader = consumer(settings, event.topic, group=ingestion_group(project.name), partition_assignment_strategy=(Forgetful,))
    await leader.start()
    following = asyncio.create_task(_follow(leader))
    try:
        board = HealthBoard("kafka", "routing")
        async with running(settings, project, "one") as routing:
            with pytest.raises(UnreadPartitions, match=r"has read \S+\[0\], \S+\[1\] for \d+ s"):
                await IngestionWatch(routing, board, settings, Pulse("routing")).run()
            assert "no member of the group" in board.missing["routing"]
            shown = re.findall(
                rf'tidemill_ingestion_lag_records{{partition="(.)",topic="{event.topic}"}} (.+)', metrics.exposition()[1].decode()
            )
            assert sorted(shown) == [("0", "5.0"), ("1", "4.0")]
        async with EventConsumer(settings, project) as other, asyncio.timeout(180):
            while other.kafka.assignment() | leader.assignment() != other.declared:  # the group may still be sharing them out
                await asyncio.sleep(0.1)
    finally:
        following.cancel()
        await close_consumer(leader)


async def _follow(leader: AIOKafkaConsumer) -> None:
    """Stay a member of the group, and read nothing."""
    while True:
        await asyncio.sleep(0.1)
        with contextlib.suppress(KafkaError):
            await leader.getmany(timeout_ms=100)
