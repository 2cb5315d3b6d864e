"""Kafka and Redis that die, lose data or refuse: the worker says so, waits, and goes on by itself."""

import asyncio
import time
from itertools import count

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.features.rig import Rig

from tidemill.kafka.admin import admin
from tidemill.local.stack import Stack
from tidemill.online.keys import fence_key, state_key

pytestmark = pytest.mark.integration


@pytest.mark.soak
def test_valkey_is_killed(rig: Rig, servers: Stack) -> None:
    """Valkey killed three times while events are folded: it comes back with its log, the worker goes on from its fence."""
    rig.produce(5_000)
    worker = rig.worker()
    for _ in range(3):
        rig.produce(3_000)
        servers.kill("valkey")
        servers.wait_ready("valkey")
    rig.wait_folded()
    rig.check()
    worker.wait_ready()


@pytest.mark.soak
def test_everything_is_flushed(rig: Rig) -> None:
    """FLUSHALL while events flow, and again when all is quiet: the worker rebuilds everything from the topics."""
    rig.produce(5_000)
    worker = rig.worker()
    rig.wait_folded()
    rig.store.flushall()
    rig.produce(3_000)
    rig.wait_folded()
    rig.check()
    rig.store.flushall()
    rig.wait_folded()
    rig.check()
    assert worker.metric("tidemill_features_rewinds_total") > 0


def test_redis_is_away(rig: Rig, servers: Stack) -> None:
    """Redis away at the start and later: the worker is not ready, says why, and goes on without a restart."""
    servers.halt("valkey")
    try:
        rig.produce(2_000)
        worker = rig.worker()
        worker.wait_saying("cannot reach Redis")
        servers.resume("valkey")
        rig.wait_folded()
        worker.wait_ready()
        servers.halt("valkey")
        rig.produce(2_000)
        worker.wait_saying("Redis")
        time.sleep(10)  # long enough for whatever has a time-out
    finally:
        servers.resume("valkey")
    rig.wait_folded()
    rig.check()
    worker.wait_ready()


def test_kafka_is_away(rig: Rig, servers: Stack) -> None:
    """Kafka killed while a worker runs, and away when one starts: both go on when it is back."""
    rig.produce(2_000)
    running = rig.worker()
    running.wait_ready()
    servers.kill("kafka")
    servers.wait_ready("kafka")
    rig.produce(1_000)
    rig.wait_folded()
    servers.halt("kafka")
    try:
        running.wait_saying("Kafka")
        starting = rig.worker()
        starting.wait_saying("Kafka at ")
    finally:
        servers.resume("kafka")
    rig.produce(1_000)
    rig.wait_folded()
    rig.check()
    running.wait_ready()
    starting.wait_ready()


def test_store_refuses_writes(rig: Rig) -> None:
    """Redis out of memory: the batch waits, with the reason in the readiness, and is applied once there is room."""
    rig.produce(1_000)
    worker = rig.worker()
    rig.wait_folded()
    rig.store.config_set("maxmemory", "1mb")
    try:
        rig.produce(1_000)
        worker.wait_saying("OOM")
    finally:
        rig.store.config_set("maxmemory", "0")
    rig.wait_folded()
    rig.check()
    worker.wait_ready()


def test_eviction_is_refused(rig: Rig) -> None:
    """A store that may evict is not written to, until its policy is changed."""
    rig.store.config_set("maxmemory-policy", "allkeys-lru")
    try:
        rig.produce(500)
        worker = rig.worker()
        worker.wait_saying("noeviction")
        assert not rig.stored()
    finally:
        rig.store.config_set("maxmemory-policy", "noeviction")
    rig.wait_folded()
    assert rig.stored()
    rig.check()


@pytest.mark.soak
def test_topic_is_created_anew(rig: Rig) -> None:
    """A topic with other records than were folded is refused by name, alone; deleting the fence has it rebuilt."""
    rig.produce(3_000)
    first = rig.worker()
    rig.wait_folded()
    first.process.kill()
    asyncio.run(_recreate(rig, rig.topics()[0]))
    other = Rig(rig.name, rig.folder, rig.kafka, rig.redis_url, seed=99)
    other.produce(6_000)
    second = rig.worker()
    second.wait_saying("the record at offset")
    second.wait_saying("by_card")
    assert "by_shop" not in second.get("/health/ready")[1]
    for partition in range(4):
        rig.store.delete(fence_key(rig.name, rig.project.views["by_card"].log, partition))
    rig.wait_folded()
    rig.check()
    second.wait_ready()
    other.stop()


@pytest.mark.soak
def test_topic_lost_its_tail(rig: Rig) -> None:
    """A topic that ends before the fence is refused."""
    rig.produce(1_000)
    first = rig.worker()
    rig.wait_folded()
    first.process.kill()
    asyncio.run(_recreate(rig, rig.topics()[1]))
    rig.produce(10)
    rig.worker().wait_saying("the topic ends at offset")


def test_history_is_gone(rig: Rig) -> None:
    """A fence older than the topic's first record, here none at all, is refused instead of folding what is left."""
    rig.produce(1_000)
    asyncio.run(_delete_records(rig, rig.topics()[1], 0, 5))
    worker = rig.worker()
    worker.wait_saying("the topic begins at offset 5")
    assert rig.position(rig.topics()[1], 0) == 0


def test_definition_changed(rig: Rig) -> None:
    """A changed view is refused by name while the other is folded; deleting its fences has it rebuilt."""
    rig.produce(1_000)
    first = rig.worker()
    rig.wait_folded()
    first.process.kill()
    rig.declare(dedupe=3)
    rig = Rig(rig.name, rig.folder, rig.kafka, rig.redis_url, dedupe=3, seed=5, workers=rig.workers)
    rig.produce(1_000)
    second = rig.worker()
    second.wait_saying("another definition")
    for partition in range(4):
        rig.store.delete(fence_key(rig.name, rig.project.views["by_card"].log, partition))
    rig.wait_folded()
    rig.check()
    second.wait_ready()


def test_damaged_value(rig: Rig) -> None:
    """A damaged entity stops its partition and no other; it is named, counted, and rebuilt once the fence is deleted."""
    rig.produce(2_000)
    first = rig.worker()
    rig.wait_folded()
    first.process.kill()
    key = next(key for key in rig.store.keys(state_key(rig.name, rig.project.views["by_card"].log, 2, b"*")))
    rig.store.setrange(key, 6, b"\xff\xff\xff")  # in the time of the newest event, which is no length
    rig.produce(2_000)
    worker = rig.worker()
    worker.wait_saying("fails its checksum")
    worker.wait_saying("partition 2")
    assert worker.metric("tidemill_features_partitions_stopped_total") == 1
    rig.store.delete(fence_key(rig.name, rig.project.views["by_card"].log, 2))
    rig.wait_folded()
    rig.check()
    worker.wait_ready()


async def _recreate(rig: Rig, topic: str) -> None:
    async with admin(rig.settings) as client:
        await client.delete_topics([topic])
        for _ in count():
            if topic not in await client.list_topics():
                return
            await asyncio.sleep(0.1)


async def _delete_records(rig: Rig, topic: str, partition: int, before: int) -> None:
    client: AIOKafkaAdminClient
    async with admin(rig.settings) as client:
        await client.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=before)})
