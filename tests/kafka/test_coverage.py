"""Declared partitions that no member of a group reads are found, on a real Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition

from tidemill.errors import KafkaUnavailable
from tidemill.kafka.client import close_consumer, close_producer, consumer, producer
from tidemill.kafka.coverage import PATIENCE_SECONDS, Coverage
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import assigned_to_group, ensure_topics
from tidemill.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    """The session's broker."""
    return KafkaSettings(bootstrap_servers=kafka)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@asynccontextmanager
async def member(settings: KafkaSettings, group: str, *topics: str) -> AsyncIterator[None]:
    """A member of a group."""
    reader = consumer(settings, *topics, group=group, auto_offset_reset="earliest")
    await reader.start()
    try:
        yield
    finally:
        await close_consumer(reader)


async def test_what_no_member_reads(settings: KafkaSettings, topic_prefix: str) -> None:
    """Partitions are unread as long as no member has them, whoever asks; what waits in them is counted from what the group has committed."""
    topics = [f"{topic_prefix}.{name}" for name in ("a", "b")]
    a, b = (TopicPartition(topic, 0) for topic in topics)
    await ensure_topics(settings, {topic: TopicSpec(1, {}) for topic in topics})
    writer = producer(settings)
    await writer.start()
    for _ in range(3):
        await writer.send_and_wait(topics[1], b"x", partition=0)
    await close_producer(writer)
    clock = Clock()
    coverage = Coverage(settings, topic_prefix, [a, b], clock)
    await coverage.look(frozenset({a}))
    assert (coverage.unread, coverage.reason) == ({b: 3}, None)
    clock.now += PATIENCE_SECONDS
    await coverage.look(frozenset())
    assert coverage.unread == {a: 0, b: 3}
    assert coverage.reason == f"no member of the group {topic_prefix} has read {topics[0]}[0], {topics[1]}[0] for 10 s"
    async with member(settings, topic_prefix, topics[0]):
        assert await assigned_to_group(settings, topic_prefix) == {a}
        await coverage.look(frozenset())
        assert coverage.unread == {b: 3}
        assert coverage.reason == f"no member of the group {topic_prefix} has read {topics[1]}[0] for 10 s"
    async with member(settings, topic_prefix, *topics):
        await coverage.look(frozenset())
    assert not coverage.unread
    assert coverage.seconds == 0.0


async def test_whoever_reads_all_need_not_ask() -> None:
    """A member to which everything is assigned does not ask Kafka at all; one that has to, says when there is no answer."""
    nowhere, partition = KafkaSettings(bootstrap_servers="127.0.0.1:1"), TopicPartition("a", 0)
    coverage = Coverage(nowhere, "g", [partition])
    await coverage.look(frozenset({partition}))
    assert coverage.reason is None
    with pytest.raises(KafkaUnavailable):
        await coverage.look(frozenset())
