"""What the behaviour suite asks of a log, and two that answer: the twin, and a real Kafka."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import OffsetOutOfRangeError

from tidemill.kafka.admin import admin
from tidemill.kafka.client import close_consumer, close_producer, consumer, producer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.kafka.waves import send_wave
from tidemill.runtime.settings import KafkaSettings
from tidemill.testing.log import MemoryKafka

Pair = tuple[bytes | None, bytes | None]
PARTITIONS = 2


class Log(Protocol):
    """A topic of PARTITIONS partitions."""

    async def append(self, partition: int, pairs: Sequence[Pair]) -> tuple[int, int]:
        """Write records; the offsets of the first and the last."""

    async def read(self, partition: int, offset: int) -> list[tuple[int, bytes | None, bytes | None]]:
        """Offset, key and value of all records from an offset on. Raises IndexError when the log does not hold it."""

    async def held(self, partition: int) -> tuple[int, int]:
        """The first offset held, and the next one to be written."""

    async def expire(self, partition: int, offset: int) -> None:
        """Lose the records below an offset, as retention does."""


class TwinLog:
    """The twin."""

    def __init__(self) -> None:
        self._kafka = MemoryKafka({"t": PARTITIONS})

    async def append(self, partition: int, pairs: Sequence[Pair]) -> tuple[int, int]:
        """See `Log`."""
        offsets = [self._kafka.append("t", partition, *pair).offset for pair in pairs]
        return offsets[0], offsets[-1]

    async def read(self, partition: int, offset: int) -> list[tuple[int, bytes | None, bytes | None]]:
        """See `Log`."""
        return [(record.offset, record.key, record.value) for record in self._kafka.partitions("t")[partition].read(offset)]

    async def held(self, partition: int) -> tuple[int, int]:
        """See `Log`."""
        log = self._kafka.partitions("t")[partition]
        return log.start, log.end

    async def expire(self, partition: int, offset: int) -> None:
        """See `Log`."""
        self._kafka.partitions("t")[partition].start = offset


class KafkaLog:
    """A topic of a real Kafka, written and read as the services do."""

    def __init__(self, settings: KafkaSettings, topic: str, client: AIOKafkaProducer, groups: AIOKafkaAdminClient) -> None:
        self._settings, self._topic, self._client, self._admin = settings, topic, client, groups

    async def append(self, partition: int, pairs: Sequence[Pair]) -> tuple[int, int]:
        """See `Log`."""
        offsets = await send_wave(self._client, {(self._topic, partition): [(key, value, []) for key, value in pairs]})
        first, last = offsets[self._topic, partition]
        return first, last

    async def read(self, partition: int, offset: int) -> list[tuple[int, bytes | None, bytes | None]]:
        """See `Log`."""
        target, end = TopicPartition(self._topic, partition), (await self.held(partition))[1]
        reader = consumer(self._settings)
        found: list[tuple[int, bytes | None, bytes | None]] = []
        await reader.start()
        try:
            reader.assign([target])
            reader.seek(target, offset)
            while offset + len(found) != end:
                for record in itertools.chain(*(await reader.getmany(timeout_ms=200)).values()):
                    found.append((record.offset, record.key, record.value))
        except OffsetOutOfRangeError as error:
            raise IndexError(str(error)) from error
        finally:
            await close_consumer(reader)
        return found

    async def held(self, partition: int) -> tuple[int, int]:
        """See `Log`."""
        found = (await offset_ranges(self._settings, self._topic))[TopicPartition(self._topic, partition)]
        return found.begin, found.end

    async def expire(self, partition: int, offset: int) -> None:
        """See `Log`."""
        await self._admin.delete_records({TopicPartition(self._topic, partition): RecordsToDelete(before_offset=offset)})


@asynccontextmanager
async def kafka_log(bootstrap_servers: str, topic: str) -> AsyncIterator[KafkaLog]:
    """A new topic of a real Kafka."""
    settings = KafkaSettings(bootstrap_servers=bootstrap_servers)
    await ensure_topics(settings, {topic: TopicSpec(PARTITIONS, {})})
    client = producer(settings)
    async with admin(settings) as groups:
        try:
            await client.start()
            yield KafkaLog(settings, topic, client, groups)
        finally:
            await close_producer(client)
