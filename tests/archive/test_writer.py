"""The archive against a real broker: whatever happens to the writer and to the topic, the table holds each accepted event once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from tests.archive.trips import FOLDER, project_of, trip
from tests.offline.lake import Pair, Service, running, send, until

from tidemill.archive.reading import read_events
from tidemill.declarations.project import Project
from tidemill.kafka.admin import admin
from tidemill.kafka.topics import ensure_topics
from tidemill.offline.store import OfflineStore
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs

pytestmark = pytest.mark.integration


class Archive:
    """The writer's process, the table, and the topic of a test of its own."""

    def __init__(self, kafka: str, project: Project, folder: Path) -> None:
        self.kafka, self.project = kafka, project
        self.topic = project.events["trips"].topic
        self.store = OfflineStore(folder / "offline")
        self.service = Service("tidemill_offline", project.name, kafka, folder / "offline", folder / "writer.log")

    def running(self, **more: str) -> AbstractContextManager[Service]:
        """The writer, running."""
        return running(self.service, TIDEMILL_PROJECT=str(FOLDER), TRIPS_PROJECT=self.project.name, **more)

    async def make(self) -> None:
        """The topics."""
        await ensure_topics(KafkaSettings(bootstrap_servers=self.kafka), topic_specs(self.project))

    async def publish(self, *values: bytes | None, partition: int = 0) -> None:
        """Write records to a partition."""
        pairs: Sequence[Pair] = [(b"k", value) for value in values]
        await send(self.kafka, {(self.topic, partition): pairs})

    def offsets(self, partition: int = 0) -> list[int]:
        """The offsets of the archived events of a partition."""
        rows = read_events(self.store, self.project.events["trips"], ["fare"]).to_pylist()
        return sorted(row["_offset"] for row in rows if row["_partition"] == partition)

    def position(self, partition: int = 0) -> int:
        """The next offset, as the service tells it."""
        found: int = self.service.get("/positions").json()[self.topic].get(str(partition), -1)
        return found

    def reason(self) -> str:
        """Why the archive is not ready."""
        return str(self.service.get("/health/ready").json()["checks"]["events/trips"].get("reason", ""))


@pytest.fixture
def archive(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Archive]:
    """An archive whose writer does not run yet."""
    made = Archive(kafka, project_of(topic_prefix), tmp_path)
    yield made
    made.service.kill()


async def test_killed_again_and_again(archive: Archive) -> None:
    """Kill -9 between commits and within them: every accepted event is there once; refused ones move the position."""
    await archive.make()
    chance, count = random.Random(3), 6_000
    values = [b"junk" if i % 50 == 7 else trip(i, colour="red") for i in range(count)]

    async def publish() -> None:
        for first in range(0, count, 300):
            await archive.publish(*values[first : first + 300])
            await asyncio.sleep(0.1)

    sending = asyncio.create_task(publish())
    for _ in range(4):
        with archive.running():
            await until(lambda: archive.position() > 0)
            await asyncio.sleep(chance.random() * 0.6)
    await sending
    with archive.running():
        await until(lambda: archive.position() == count)
        assert 'tidemill_offline_lag_records{partition="0",table="events/trips"}' in archive.service.get("/metrics").text
    assert archive.offsets() == [i for i in range(count) if i % 50 != 7]


async def test_only_refused_events(archive: Archive) -> None:
    """A topic of refused events alone moves the position too, and the table has no row."""
    with archive.running():
        await until(lambda: archive.service.get("/health/ready").status_code == 200)
        await archive.publish(b"junk", None, b"{}")
        await until(lambda: archive.position() == 3)
    assert archive.offsets() == []


async def test_gaps_of_transactions(archive: Archive) -> None:
    """Markers of transactions take offsets, and aborted records are not events."""
    await archive.make()
    producer = AIOKafkaProducer(bootstrap_servers=archive.kafka, transactional_id=archive.project.name)
    await producer.start()
    try:
        for number in range(4):
            await producer.begin_transaction()
            for i in range(3):
                await (await producer.send(archive.topic, trip(3 * number + i), b"k", 0))
            await (producer.abort_transaction() if number == 1 else producer.commit_transaction())
    finally:
        await producer.stop()
    with archive.running():
        await until(lambda: archive.position() == 16)
    with archive.running():
        await archive.publish(trip(99))
        await until(lambda: archive.position() == 17)
    assert archive.offsets() == [0, 1, 2, 8, 9, 10, 12, 13, 14, 16]


async def test_events_that_expired_and_partitions_that_came(archive: Archive) -> None:
    """A topic may begin after 0, lose events before they are read, which is told, and get more partitions: the archive goes on."""
    await archive.make()
    await archive.publish(*map(trip, range(10)))
    await _delete_below(archive, 4)
    with archive.running():
        await until(lambda: archive.position() == 10)
        assert not any("retention removed" in line["message"] for line in archive.service.lines())
    await archive.publish(*map(trip, range(10, 20)))
    await _delete_below(archive, 15)
    async with admin(KafkaSettings(bootstrap_servers=archive.kafka)) as client:
        await client.create_partitions({archive.topic: NewPartitions(3)})
    with archive.running():
        await until(lambda: archive.position() == 20)
        (line,) = [line for line in archive.service.lines() if "retention removed" in line["message"]]
        assert line["lost"] == 5
        text = archive.service.get("/metrics").text
        assert [line for line in text.splitlines() if "expired_total{" in line] == [
            f'tidemill_offline_events_expired_total{{topic="{archive.topic}"}} 5.0'
        ]
        await archive.publish(trip(50), partition=2)
        await until(lambda: archive.position(2) == 1)
    assert (archive.offsets(), archive.offsets(2)) == ([*range(4, 10), *range(15, 20)], [0])


async def _delete_below(archive: Archive, offset: int) -> None:
    async with admin(KafkaSettings(bootstrap_servers=archive.kafka)) as client:
        await client.delete_records({TopicPartition(archive.topic, 0): RecordsToDelete(before_offset=offset)})


async def test_a_topic_made_anew_is_refused(archive: Archive) -> None:
    """A topic that was made anew is refused by name, whether it ends before the position or has been filled beyond it."""
    with archive.running():
        await until(lambda: archive.service.get("/health/ready").status_code == 200)
        await archive.publish(*map(trip, range(10)))
        await until(lambda: archive.position() == 10)
    async with admin(KafkaSettings(bootstrap_servers=archive.kafka)) as client:
        await client.delete_topics([archive.topic])
        while archive.topic in await client.list_topics():
            await asyncio.sleep(0.1)
        await client.create_topics([NewTopic(archive.topic, 2, 1)])
    with archive.running():
        await until(lambda: "Kafka ends at 0" in archive.reason())
        await archive.publish(*map(trip, range(100, 120)))
        await until(lambda: "not the one that was read then" in archive.reason())
    assert archive.offsets() == list(range(10))


async def test_a_field_that_is_declared_later(archive: Archive) -> None:
    """A field that was carried before it was declared has its values from then; it has a column from now on."""
    await archive.make()
    await archive.publish(trip(0, tip=1.5), trip(1), trip(2, tip="none"), trip(3, tip=7))
    with archive.running():
        await until(lambda: archive.position() == 4)
    await archive.publish(trip(4, tip=2.5))
    with archive.running(TRIPS_LATER="1"):
        await until(lambda: archive.position() == 5)
    event = project_of(archive.project.name, later=True).events["trips"]
    rows = read_events(archive.store, event, ["tip"]).sort_by("_offset")
    assert rows["tip"].to_pylist() == [1.5, None, None, 7.0, 2.5]
    assert "tip" in archive.store.snapshot("events/trips").columns


async def test_events_are_kept_for_some_days(archive: Archive) -> None:
    """With TIDEMILL_ARCHIVE_DAYS events that became known earlier are deleted, and the log says how many."""
    await archive.make()
    await archive.publish(trip(0))
    with archive.running():
        await until(lambda: archive.position() == 1)
    envelope = b'{"type":"trips","recordedtime":1600000000000,"data":%s}'
    old = [envelope % trip(i, at=1_600_000_000_000) for i in range(3)]
    headers = [("content-type", b"application/cloudevents+json")]
    producer = AIOKafkaProducer(bootstrap_servers=archive.kafka)
    await producer.start()
    try:
        for value in old:
            await producer.send_and_wait(archive.topic, value, b"k", 0, headers=headers)
    finally:
        await producer.stop()
    with archive.running():
        await until(lambda: archive.position() == 4)
    assert len(archive.offsets()) == 4
    with archive.running(TIDEMILL_ARCHIVE_DAYS="30"):
        line = await until(lambda: next((line for line in archive.service.lines() if "older than" in line["message"]), None))
        await archive.publish(trip(9))
        await until(lambda: archive.position() == 5)
    assert line["events"] == 3
    assert archive.offsets() == [0, 4]
