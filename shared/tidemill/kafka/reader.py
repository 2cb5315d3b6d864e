"""Reading partitions from given positions, without a consumer group: under deadlines, with errors as KafkaUnavailable."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from aiokafka import TopicPartition

from tidemill.errors import TopicRecreated
from tidemill.kafka.client import KAFKA_SECONDS, close_consumer, consumer, kafka_errors
from tidemill.runtime.settings import KafkaSettings


class Reader:
    """Reads all given partitions. `next`: for each partition, the offset after the last one read; `first_ends`: its end when reading began.

    `positions`: where to begin; a position before the topic's first record moves up to it. `next` also skips offsets without a record
    (marks of transactions, aborted records, compacted records). Every method raises KafkaUnavailable, and TopicRecreated when a partition
    ends before `next`. As a context manager it starts and stops itself. `overrides`: options of the consumer.
    """

    def __init__(self, kafka: KafkaSettings, positions: Mapping[TopicPartition, int], **overrides: Any) -> None:
        self.next: dict[TopicPartition, int] = dict(positions)
        self.first_ends: dict[TopicPartition, int] = {}
        self._kafka = kafka
        self._consumer = consumer(kafka, **overrides)

    async def start(self) -> dict[TopicPartition, int]:
        """Connects and seeks the positions; returns the end of each partition."""
        with kafka_errors(self._kafka):
            async with asyncio.timeout(KAFKA_SECONDS):
                await self._consumer.start()
                begins = await self._consumer.beginning_offsets(list(self.next))
        self.first_ends = await self.ends()
        self._consumer.assign(list(self.next))
        for target in self.next:
            self._consumer.seek(target, self._begin(target, begins[target]))
        return self.first_ends

    async def stop(self) -> None:
        """Disconnects; never raises."""
        await close_consumer(self._consumer, KAFKA_SECONDS)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def fetch(self, wait_seconds: float, most: int) -> dict[TopicPartition, list[Any]]:
        """New records by partition, in offset order: at most about `most`; empty when none came within `wait_seconds`."""
        with kafka_errors(self._kafka):
            return await self._taken(await self._fetched(wait_seconds, most))

    async def ends(self) -> dict[TopicPartition, int]:
        """The end of each partition now, never below `next`."""
        with kafka_errors(self._kafka):
            async with asyncio.timeout(KAFKA_SECONDS):
                ends: dict[TopicPartition, int] = await self._consumer.end_offsets(list(self.next))
        for target, end in ends.items():
            if end < self.next[target]:
                raise recreated(target, self.next[target], f"Kafka ends at {end}")
        return ends

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has, as far as the client has heard (it asks every minute)."""
        return len(self._consumer.partitions_for_topic(topic) or ())

    def _begin(self, target: TopicPartition, begin: int) -> int:
        """Where to begin in a partition whose first offset is `begin`."""
        position = self.next[target] = max(self.next[target], begin)
        return position

    async def _fetched(self, wait_seconds: float, most: int) -> dict[TopicPartition, list[Any]]:
        fetched: dict[TopicPartition, list[Any]] = await self._consumer.getmany(timeout_ms=int(wait_seconds * 1000), max_records=most)
        return fetched

    async def _taken(self, fetched: dict[TopicPartition, list[Any]]) -> dict[TopicPartition, list[Any]]:
        """Moves `next` past the fetched records; returns the new ones."""
        for target in self.next:
            self.next[target] = await self._consumer.position(target)
        return fetched


class OccasionalReader(Reader):
    """Reads now and then, to the end. Between two readings it asks the broker for nothing: else its next question would wait for half a second, until the
    broker has answered the last one, which is for records that have not come."""

    async def start(self) -> dict[TopicPartition, int]:
        """As of any reader."""
        ends = await super().start()
        self._consumer.pause(*self.next)
        return ends

    async def _fetched(self, wait_seconds: float, most: int) -> dict[TopicPartition, list[Any]]:
        self._consumer.resume(*self.next)
        try:
            return await super()._fetched(wait_seconds, most)
        finally:
            self._consumer.pause(*self.next)  # before the client asks for what comes after these


def recreated(target: TopicPartition, position: int, found: str) -> TopicRecreated:
    """The error for a topic that no longer holds records that were read."""
    return TopicRecreated(
        f"{target.topic}[{target.partition}] was read up to offset {position}, but {found}",
        mend="the topic was truncated, compacted or made anew: restore it, or move its table away to begin again from what Kafka has",
    )
