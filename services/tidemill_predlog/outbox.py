"""Publishing results: the table is the truth, the topic follows it.

A result is in the table before it is published. At start, and after anything went wrong, the topic's last record says what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from aiokafka import TopicPartition

from tidemill.errors import KafkaUnavailable, TopicRecreated
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.dense_reader import KAFKA_SECONDS, DenseReader
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.kafka.waves import Record, send_wave
from tidemill.records import ResultRecord, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill_predlog.results import ResultsTable

PUBLISH_SECONDS = 30.0

_DECODER = decoder(ResultRecord)


class Outbox:
    """Publishes the results of a table to a topic of one partition, in order of `seq`, each once as long as one process does it."""

    def __init__(self, kafka: KafkaSettings, topic: str, spec: TopicSpec, table: ResultsTable, pulse: Pulse) -> None:
        self._kafka = kafka
        self._topic, self._spec = topic, spec
        self._table = table
        self._pulse = pulse
        self._producer = producer(kafka)

    async def start(self, next_seq: int) -> None:
        """Connect and publish what the topic lacks below `next_seq`. Raises KafkaUnavailable, TopicMismatch, TopicRecreated."""
        try:
            async with asyncio.timeout(KAFKA_SECONDS):  # by itself it would wait for its number for ever
                await self._producer.start()
        except TimeoutError:
            raise KafkaUnavailable(f"Kafka gives no producer a number for {KAFKA_SECONDS:g} s", mend="look at the brokers' logs") from None
        self._pulse.beat()
        await ensure_topics(self._kafka, {self._topic: self._spec})  # deleted, it is made anew and filled
        self._pulse.beat()
        published = await self._published()
        if published > next_seq:
            raise TopicRecreated(
                f"{self._topic} holds results up to {published}, table 'results' only up to {next_seq}",
                mend="restore the table, or delete the topic so that it is filled from the table",
            )
        for results in await asyncio.to_thread(self._table.since, published, next_seq):
            await self.publish(results)
            self._pulse.beat()

    async def stop(self) -> None:
        """Disconnect."""
        await close_producer(self._producer)

    async def publish(self, results: Sequence[ResultRecord]) -> None:
        """Write results and return once they are acknowledged. Raises KafkaUnavailable: some may be written; stop, and start another outbox."""
        records: list[Record] = [(result.prediction.encode(), encode(result), []) for result in results]
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await send_wave(self._producer, {(self._topic, 0): records})
        except TimeoutError:
            raise KafkaUnavailable(
                f"{len(results)} results are not published after {PUBLISH_SECONDS:g} s",
                mend="start Kafka; they are in the table and go out then",
            ) from None

    async def _published(self) -> int:
        """The number after the topic's last result."""
        target = TopicPartition(self._topic, 0)
        held = (await offset_ranges(self._kafka, self._topic))[target]
        if held.begin == held.end:
            return 0
        reader = DenseReader(self._kafka, {target: held.end - 1}, {})
        try:
            await reader.start()
            fetched = await reader.fetch(KAFKA_SECONDS, 1)
        finally:
            await reader.stop()
        if target not in fetched:
            raise KafkaUnavailable(f"the last record of {self._topic} cannot be read", mend="look at the brokers' logs")
        try:
            return _DECODER.decode(fetched[target][0].value).seq + 1
        except (msgspec.DecodeError, TypeError) as error:
            raise TopicRecreated(
                f"the last record of {self._topic} is not a result: {error}",
                mend="only prediction logging may write this topic: delete it, and it is filled again",
            ) from error
