"""Since when a view is fed is told once, by whoever routes first, on a real Kafka."""

from __future__ import annotations

import dataclasses

import pytest
from aiokafka import TopicPartition
from tests.ingestion.log_tools import make_topics, read_log

from tidemill import Event, FeatureView, count
from tidemill.declarations.project import Project
from tidemill.kafka.client import close_producer, consumer, producer
from tidemill.records import since_of, since_record
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group, view_topic
from tidemill.streams.view_origins import tell_origins

pytestmark = pytest.mark.integration

SOLD = Event("sold", {"shop": str, "at": int}, time="at", partitions=1)


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    """The session's broker."""
    return KafkaSettings(bootstrap_servers=kafka)


@pytest.fixture
def project(topic_prefix: str) -> Project:
    """One event and one view of two partitions."""
    sold = dataclasses.replace(SOLD, topic=f"{topic_prefix}.in.sold")
    return Project(topic_prefix, {"sold": sold}, {"shops": FeatureView("shops", sold, "shop", [count()], partitions=2)})


async def write(settings: KafkaSettings, project: Project, partition: int, key: bytes, value: bytes) -> None:
    """One record of the view's log."""
    made = producer(settings)
    await made.start()
    await made.send_and_wait(view_topic(project.name, project.views["shops"].log), value, key=key, partition=partition)
    await close_producer(made)


async def route(settings: KafkaSettings, project: Project) -> None:
    """Commit a position of ingestion: its event was routed."""
    reader, partition = consumer(settings, group=ingestion_group(project.name)), TopicPartition(project.events["sold"].topic, 0)
    await reader.start()
    reader.assign([partition])
    await reader.commit({partition: 5})
    await reader.stop()


async def told(settings: KafkaSettings, project: Project) -> list[list[int | None]]:
    """What each partition's records tell."""
    log = await read_log(settings, view_topic(project.name, project.views["shops"].log))
    return [[since_of(record.key) for record in records] for _, records in sorted(log.items())]


async def test_a_view_that_is_there_from_the_beginning(settings: KafkaSettings, project: Project) -> None:
    """Nothing was routed before: nothing is told, and the log stays empty."""
    await make_topics(settings, project)
    assert await tell_origins(settings, project, 7) == []
    assert await told(settings, project) == [[], []]


async def test_a_view_whose_event_was_routed_before(settings: KafkaSettings, project: Project) -> None:
    """It is told once to every partition, also when the first to do it was interrupted; a later start adds nothing."""
    await make_topics(settings, project)
    await route(settings, project)
    await write(settings, project, 1, *since_record(6))
    assert await tell_origins(settings, project, 7) == ["shops"]
    assert await tell_origins(settings, project, 9) == []
    assert await told(settings, project) == [[7], [6]]


async def test_a_view_that_has_a_record(settings: KafkaSettings, project: Project) -> None:
    """A view with records is in use, whatever partitions are empty."""
    await make_topics(settings, project)
    await route(settings, project)
    await write(settings, project, 1, b"a", b"{}")
    assert await tell_origins(settings, project, 7) == []
    assert await told(settings, project) == [[], [None]]
