"""Publishing results: the table is the truth, the topic follows it.

A result is in the table before it is published. At start, and after any failure, the topic's last record shows which results it lacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition

from tidemill.errors import KafkaUnavailable, TopicRecreated
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kafka.read_to_end import read_to_end
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
    """Publishes the results of a table to a topic of one partition, in order of `seq`, each once as long as one process does it.

    `producer` is started already; its maker closes it.
    """

    def __init__(
        self, kafka: KafkaSettings, producer: AIOKafkaProducer, topic: str, spec: TopicSpec, table: ResultsTable, pulse: Pulse
    ) -> None:
        self._kafka = kafka
        self._topic, self._spec = topic, spec
        self._table = table
        self._pulse = pulse
        self._producer = producer

    async def start(self, next_seq: int) -> None:
        """Publish what the topic lacks below `next_seq`. Raises KafkaUnavailable, TopicMismatch, TopicRecreated."""
        await ensure_topics(self._kafka, {self._topic: self._spec})  # a deleted topic is made again and filled
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

    async def publish(self, results: Sequence[ResultRecord]) -> None:
        """Write results and return once they are acknowledged. Raises KafkaUnavailable: some may be written; close the producer, and start another outbox."""
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
        found = []
        async with DenseReader(self._kafka, {target: held.end - 1}, {}) as reader:
            async for fetched in read_to_end(reader):
                found += fetched.get(target, [])
        try:
            return _DECODER.decode(found[-1].value).seq + 1
        except (msgspec.DecodeError, TypeError) as error:
            raise TopicRecreated(
                f"the last record of {self._topic} is not a result: {error}",
                mend="only prediction logging may write this topic: delete it, and it is filled again",
            ) from error
