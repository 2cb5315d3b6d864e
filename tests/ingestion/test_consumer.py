"""The consumer on a real Kafka: waves, commits, positions, refusals by the broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.record.util import calc_crc32c
from tests.ingestion.log_tools import dead_letters, expected, make_topics, publish, read_log, told, wait_routed
from tests.ingestion.samples import airline, arrived, departed, scheduled
from tests.kafka.test_client import producing

from tidemill import FeatureView, count
from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable, TidemillError, TopicRecreated
from tidemill.kafka.admin import admin
from tidemill.kafka.client import consumer, producer
from tidemill.kafka.coverage import Coverage
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import committed, ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.runtime import metrics
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group, view_topic
from tidemill_ingestion.consumer import EventConsumer

pytestmark = pytest.mark.integration

OLD = [("ce_recordedtime", b"1700000000000")]


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    """The session's broker."""
    return KafkaSettings(bootstrap_servers=kafka)


@pytest.fixture
def project(topic_prefix: str) -> Project:
    """The tests' project under a name nobody else uses."""
    return airline(topic_prefix)


@asynccontextmanager
async def running(settings: KafkaSettings, project: Project) -> AsyncIterator[EventConsumer]:
    """Route in this process; ends in good order."""
    async with EventConsumer(settings, project) as routing:
        task = asyncio.create_task(routing.run())
        try:
            yield routing
        finally:
            routing.stop()
            await task


async def commit(settings: KafkaSettings, project: Project, partition: TopicPartition, offset: int) -> None:
    """Commit a position for the project's group."""
    reader = consumer(settings, group=ingestion_group(project.name))
    await reader.start()
    reader.assign([partition])
    await reader.commit({partition: offset})
    await reader.stop()


async def set_size(settings: KafkaSettings, topic: str, size_bytes: int) -> None:
    """Change the largest batch a topic takes."""
    async with admin(settings) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size_bytes)})])


async def test_all_events_become_their_records(settings: KafkaSettings, project: Project) -> None:
    """All topics of a project are routed, in order, and their positions committed."""
    await make_topics(settings, project)
    await publish(settings, project, "departed", [departed(flight=f"F{n}", origin=f"O{n % 5}") for n in range(500)], OLD)
    await publish(settings, project, "scheduled", [scheduled(flight=f"F{n}") for n in range(100)], OLD)
    await publish(settings, project, "arrived", [arrived(number=n, flight=f"F{n}") for n in range(100)], OLD)
    async with running(settings, project) as routing:
        await wait_routed(settings, project)
        assert await told(settings, project) == await expected(settings, project)
        assert sum(routing.positions.values()) == 700


async def test_events_of_transactions(settings: KafkaSettings, project: Project) -> None:
    """What was committed is routed, what was taken back is not; the marks of both are passed, so that nothing seems to wait."""
    await make_topics(settings, project)
    topic, partition = project.events["departed"].topic, TopicPartition(project.events["departed"].topic, 0)
    async with running(settings, project) as routing:
        writer = AIOKafkaProducer(**settings.client_options(), transactional_id=project.name)
        await writer.start()
        for flight, kept in (("A", True), ("B", False), ("C", True), ("D", False)):
            await writer.begin_transaction()
            await writer.send_and_wait(topic, json.dumps(departed(flight=flight)).encode(), partition=0, headers=OLD)
            await (writer.commit_transaction() if kept else writer.abort_transaction())
        await writer.stop()
        end = 8  # four events and four marks; the broker may write the last mark after it has answered
        async with asyncio.timeout(180):
            while routing.positions.get(partition) != end:
                await asyncio.sleep(0.05)
        assert await routing.kafka.end_offsets([partition]) == {partition: end}
    logs = await read_log(settings, *(view_topic(project.name, view.log) for view in project.views.values()))
    found = [json.loads(record.value)["source"][1] for records in logs.values() for record in records]
    assert set(found) == {0, 4}


async def test_bad_events_do_not_stop_good_ones(settings: KafkaSettings, project: Project) -> None:
    """Good events around bad ones are routed; each bad one is a dead letter with its position, and counted;
    a tombstone is only counted."""
    await make_topics(settings, project)
    topic = project.events["departed"].topic
    refused = metrics.DEAD_LETTERS.labels(topic, "not_json")
    bad = [departed(), b"nonsense", None, departed(seats="x"), departed(tailnum=None), b"\xff" * 900_000, departed()]
    await publish(settings, project, "departed", bad, OLD)
    async with running(settings, project):
        await wait_routed(settings, project)
    letters = await dead_letters(settings, project)
    assert sorted((letter["reason"], *letter["source"][1:]) for letter in letters) == [
        ("not_json", 1, 0), ("not_json", 1, 1), ("wrong_type", 3, 0),
    ]  # fmt: skip
    assert metrics.NO_EVENT.labels(topic, "empty")._value.get() == 1
    assert await told(settings, project) == await expected(settings, project)
    assert refused._value.get() == 2
    assert metrics.UNKEYED.labels(view_topic(project.name, project.views["planes"].log))._value.get() == 1


@pytest.mark.parametrize("partitions", [1, 7])
async def test_a_topic_that_looks_otherwise(settings: KafkaSettings, project: Project, partitions: int) -> None:
    """Of another team: compacted, with fewer or more partitions than declared, and a smaller limit. It is read whole, tombstones passed over."""
    event = project.events["departed"]
    theirs = {"cleanup.policy": "compact", "max.message.bytes": "500000"}
    await ensure_topics(settings, {event.topic: TopicSpec(partitions, theirs)})
    await make_topics(settings, project)
    async with producing(settings.bootstrap_servers) as to:
        records = [(b"%d" % n, None if n % 5 == 4 else json.dumps(departed(flight=f"F{n}")).encode(), OLD) for n in range(40)]
        await send_wave(to, {(event.topic, number): records[number::partitions] for number in range(partitions)})
    async with running(settings, project) as routing:
        coverage = Coverage(settings, routing.group, routing.declared)
        async with asyncio.timeout(180):
            while sum(routing.positions.values()) < 40 or coverage.unread or not routing.positions:
                await coverage.look(routing.kafka.assignment())
                await asyncio.sleep(0.05)
        assert coverage.seconds == 0.0
    logs = await read_log(settings, view_topic(project.name, project.views["carriers"].log))
    assert sum(map(len, logs.values())) == 32
    assert await dead_letters(settings, project) == []


async def test_events_that_a_view_passes_over_are_counted(settings: KafkaSettings, project: Project) -> None:
    """Their records are not made, and no dead letter is."""
    short = FeatureView("short", project.events["departed"], "origin", [count()], where="dep_delay <= 15")
    project = replace(project, views={"short": short}, models={})
    await make_topics(settings, project)
    await publish(settings, project, "departed", [departed(dep_delay=delay) for delay in (1.0, 20.0, None, 15.0)], OLD)
    async with running(settings, project):
        await wait_routed(settings, project)
    topic = view_topic(project.name, short.log)
    logs = await read_log(settings, topic)
    assert sum(map(len, logs.values())) == 2
    assert await dead_letters(settings, project) == []
    assert metrics.PASSED_OVER.labels(topic)._value.get() == 2


async def test_headers_of_any_kind(settings: KafkaSettings, project: Project) -> None:
    """Headers without a value, twice the same, or not UTF-8 are read as Kafka gives them."""
    await make_topics(settings, project)
    headers = [("ce_id", None), ("ce_id", b"H1"), ("x", b"\xff"), ("", b""), *OLD]
    await publish(settings, project, "departed", [departed(flight=...)], headers)
    async with running(settings, project):
        await wait_routed(settings, project)
    log = await read_log(settings, view_topic(project.name, project.views["origins"].log))
    assert [json.loads(record.value)["id"] for records in log.values() for record in records] == ["H1"]


async def test_header_whose_name_is_not_utf8(settings: KafkaSettings, project: Project) -> None:
    """A record the client library cannot read ends the routing with its place and what to do; what came before it is routed."""
    await make_topics(settings, project)
    writer = producer(settings, enable_idempotence=False)
    await writer.start()
    topic = project.events["departed"].topic
    await writer.send_and_wait(topic, json.dumps(departed()).encode(), partition=0, headers=OLD)
    batch = writer.create_batch()
    batch.append(key=None, value=b"x", timestamp=None, headers=[("name", b"")])
    batch.close()
    written = batch._build()
    place = bytes(written).index(b"name")
    written[place : place + 4] = b"\xff" * 4
    written[17:21] = calc_crc32c(memoryview(written)[21:]).to_bytes(4, "big")
    await (await writer.send_batch(batch, topic, partition=0))
    await writer.stop()
    async with EventConsumer(settings, project) as routing:
        with pytest.raises(TidemillError, match=r"at or after .*departed\[0\]': \d.*not UTF-8.*--to-offset OFFSET\+1"):
            await routing.run()


async def test_events_of_two_megabytes(settings: KafkaSettings, project: Project) -> None:
    """Where the topic allows it an event of 2 MB is fetched, refused as oversized, and the next one is routed."""
    topic = project.events["departed"].topic
    await make_topics(settings, project, **{topic: 4_000_000})
    large = producer(settings, max_request_size=4_000_000, max_batch_size=4_000_000)
    await large.start()
    for number in range(4):
        await large.send_and_wait(topic, b"x" * 2_000_000, partition=0)
        await large.send_and_wait(topic, json.dumps(departed(flight=f"F{number}")).encode(), partition=0, headers=OLD)
    await large.stop()
    async with running(settings, project):
        await wait_routed(settings, project)
    assert [(letter["reason"], letter["size"], letter["source"][2]) for letter in await dead_letters(settings, project)] == [
        ("oversized", 2_000_000, offset) for offset in (0, 2, 4, 6)
    ]
    assert await told(settings, project) == await expected(settings, project)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_events(settings: KafkaSettings, project: Project, codec: str) -> None:
    """Applications may compress as they like."""
    await make_topics(settings, project)
    compressing = producer(settings, compression_type=codec)
    await compressing.start()
    for number in range(20):
        value = json.dumps(departed(flight=f"F{number}")).encode()
        await compressing.send_and_wait(project.events["departed"].topic, value, partition=number % 4, headers=OLD)
    await compressing.stop()
    async with running(settings, project):
        await wait_routed(settings, project)
    assert sum(len(records) for records in (await told(settings, project)).values()) == 80
    assert await told(settings, project) == await expected(settings, project)


async def test_wave_refused_by_the_broker(settings: KafkaSettings, project: Project) -> None:
    """A broker that refuses a batch holds the routing up, whole and in order, until it takes it: nothing is lost or reordered."""
    topic = view_topic(project.name, project.views["origins"].log)
    await make_topics(settings, project, **{topic: 100})
    await publish(settings, project, "departed", [departed(flight=f"F{n}") for n in range(50)], OLD)
    async with running(settings, project):
        await asyncio.sleep(1)
        assert not any(await committed(settings, ingestion_group(project.name)))
        await set_size(settings, topic, 1_048_588)
        await wait_routed(settings, project)
    assert await told(settings, project) == await expected(settings, project)


async def test_events_that_retention_removed(settings: KafkaSettings, project: Project) -> None:
    """Where retention was faster than routing, it goes on with what is left, and counts what is not."""
    await make_topics(settings, project)
    partition = TopicPartition(project.events["departed"].topic, 0)
    await publish(settings, project, "departed", [departed(flight=f"F{n}") for n in range(40)], OLD)
    await commit(settings, project, partition, 2)
    async with admin(settings) as client:
        await client.delete_records({partition: RecordsToDelete(before_offset=6)})
    async with running(settings, project):
        await wait_routed(settings, project)
    assert metrics.EVENTS_EXPIRED.labels(partition.topic)._value.get() == 4
    assert await told(settings, project) == await expected(settings, project)


async def test_topic_that_was_made_anew(settings: KafkaSettings, project: Project) -> None:
    """A topic that ends before the committed position is not routed: views would skip its records."""
    await make_topics(settings, project)
    await publish(settings, project, "departed", [departed(flight=f"F{n}") for n in range(8)])
    await commit(settings, project, TopicPartition(project.events["departed"].topic, 1), 3)
    async with EventConsumer(settings, project) as routing:
        with pytest.raises(TopicRecreated, match=r"departed\[1\] ends at 2, but was routed up to 3"):
            await routing.run()


async def test_two_members_share_the_partitions(settings: KafkaSettings, project: Project) -> None:
    """A second process takes some of the partitions, and gives them back when it ends; the whole stays exact."""
    events = [departed(flight=f"F{n}", origin=f"O{n % 7}") for n in range(2_000)]
    await make_topics(settings, project)
    async with running(settings, project) as first:
        await publish(settings, project, "departed", events[:700], OLD)
        async with running(settings, project) as second:
            await publish(settings, project, "departed", events[700:1400], OLD)
            await wait_routed(settings, project)
            assert first.kafka.assignment().isdisjoint(second.kafka.assignment())
            assert second.positions.keys() == second.kafka.assignment() != frozenset()
        await publish(settings, project, "departed", events[1400:], OLD)
        await wait_routed(settings, project)
    assert await told(settings, project) == await expected(settings, project)


async def test_kafka_that_cannot_be_reached(project: Project) -> None:
    """Joining without a broker is a clear error, soon."""
    with pytest.raises(KafkaUnavailable, match=r"Kafka at 127\.0\.0\.1:1: KafkaConnectionError: "):
        async with EventConsumer(KafkaSettings(bootstrap_servers="127.0.0.1:1"), project):
            pass
