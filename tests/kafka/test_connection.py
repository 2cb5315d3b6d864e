"""A connection that is reset while something is sent, on uvloop as the services run, with a real broker."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from aiokafka import TopicPartition
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest
from tests.patience import PATIENCE_SECONDS

from tidemill.kafka.client import close_consumer, close_producer, consumer, producer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics
from tidemill.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration


async def reset(connection: AIOKafkaConnection) -> None:
    """Close it as a reset does: the loop knows already, aiokafka does not yet."""
    connection._writer.transport.abort()
    await asyncio.sleep(0)


async def run(kafka: str, topic: str) -> list[bytes]:
    """A consumer and a producer whose connections are reset between two records; returns what is read."""
    settings, read = KafkaSettings(bootstrap_servers=kafka), list[bytes]()
    await ensure_topics(settings, {topic: TopicSpec(1, {})})
    writer, reader = producer(settings), consumer(settings)
    await writer.start()
    await reader.start()
    try:
        reader.assign([TopicPartition(topic, 0)])
        reader.seek(TopicPartition(topic, 0), 0)
        for value in (b"before", b"after"):
            await writer.send_and_wait(topic, value, partition=0)
            read.append((await asyncio.wait_for(reader.getone(), PATIENCE_SECONDS)).value)
            for connection in [*reader._client._conns.values(), *writer.client._conns.values()]:
                await reset(connection)
                with pytest.raises(KafkaConnectionError):
                    connection.send(MetadataRequest([]))
        assert not reader._fetcher._fetch_task.done()
    finally:
        await close_producer(writer)
        await close_consumer(reader)
    return read


def test_a_reset_connection_is_an_error_of_kafka(kafka: str) -> None:
    """Whoever sends gets the error that aiokafka expects of a closed connection, and goes on with another one."""
    assert uvloop.run(run(kafka, "reset")) == [b"before", b"after"]
