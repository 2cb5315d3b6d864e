"""The shared fixtures of the tests are real servers."""

import threading
from pathlib import Path

import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.shared import Shared

pytestmark = pytest.mark.integration


async def test_kafka_carries_a_record(kafka: str, topic_prefix: str) -> None:
    """A record that was sent to the session's broker is read back."""
    topic = f"{topic_prefix}.events"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(topic, b"value", key=b"key")
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka, group_id=topic_prefix, auto_offset_reset="earliest") as consumer:
        record = await consumer.getone()
    assert (record.key, record.value) == (b"key", b"value")


@pytest.mark.parametrize("_again", [1, 2])
def test_redis_url_is_empty(redis_url: str, _again: int) -> None:
    """Each test starts with an empty store, whatever the test before it wrote."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "over")


def test_redis_url_persists_and_never_evicts(redis_url: str) -> None:
    """The store logs every write and refuses writes rather than dropping keys."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        settings = client.config_get("*")
    assert (settings["appendonly"], settings["save"], settings["maxmemory-policy"], settings["bind"]) == (
        "yes",
        "",
        "noeviction",
        "127.0.0.1",
    )


def test_workers_share_a_server(tmp_path: Path) -> None:
    """The second finds what the first started, the first stops it when the second has left, and whoever comes then starts another."""
    first, second = Shared(tmp_path / "shared", "valkey"), Shared(tmp_path / "shared", "valkey")
    address = first.join()
    assert second.join() == address
    leaving = threading.Thread(target=first.leave)
    leaving.start()
    try:
        with redis.Redis.from_url(address) as client:
            leaving.join(0.5)
            assert leaving.is_alive()
            assert client.ping()
    finally:
        second.leave()
        leaving.join()
    third = Shared(tmp_path / "shared", "valkey")
    try:
        with redis.Redis.from_url(third.join()) as client:
            assert client.ping()
    finally:
        third.leave()
    assert not (tmp_path / "shared" / "address").exists()
