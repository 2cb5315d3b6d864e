"""What the logs of views had lately, read again when a worker takes their partitions over: no store has it, and the logs say it all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
from aiokafka import TopicPartition
from faust.types import TP

from tidemill.kafka.client import kafka_away
from tidemill.kafka.reader import Reader
from tidemill.kernel.recent import Recent
from tidemill.records import DECODE_ERRORS, KafkaRecord, ViewEvent
from tidemill.runtime.settings import KafkaSettings

FETCH_RECORDS = 20_000
FETCH_SECONDS = 1.0
FETCHES = 10  # so many in a row that bring nothing mean that Kafka is away


class ReadBack(Protocol):
    """The records of partitions, in pieces: of each those at some offsets."""

    def __call__(self, spans: Mapping[TP, range]) -> AsyncIterator[tuple[TP, Sequence[KafkaRecord]]]:
        """Raises KafkaUnavailable."""


def read_back_from(kafka: KafkaSettings) -> ReadBack:
    """Records as Kafka has them."""

    async def read_back(spans: Mapping[TP, range]) -> AsyncIterator[tuple[TP, Sequence[KafkaRecord]]]:
        targets = {TopicPartition(*tp): span for tp, span in spans.items()}
        async with Reader(kafka, {target: span.start for target, span in targets.items()}) as reader:
            silent = 0
            while short := [target for target, span in targets.items() if reader.next[target] < span.stop]:
                fetched = await reader.fetch(FETCH_SECONDS, FETCH_RECORDS)
                silent = 0 if fetched else silent + 1
                if silent == FETCHES:
                    topic, partition = short[0]
                    raise kafka_away(kafka, TimeoutError(f"no record of {topic}[{partition}] from {reader.next[short[0]]} on"))
                for target, records in fetched.items():
                    yield TP(*target), [record for record in records if record.offset < targets[target].stop]

    return read_back


class Memory:
    """The memory of one log before a worker's fence, as far as it is read. `recent`: with the turns of this fence, of which there are some."""

    def __init__(self, recent: Recent, decoder: msgspec.json.Decoder[ViewEvent]) -> None:
        self.recent = recent
        self._decode = decoder.decode

    def span(self, held: range) -> range:
        """What has to be read of the offsets that the log holds below the fence: the parts that are remembered."""
        (_, begin), *_ = self.recent.turns
        return range(max(held.start, begin), held.stop)

    def take(self, records: Sequence[KafkaRecord]) -> None:
        """Remembers records; those that the fold refuses as broken tell nothing."""
        decode, remember = self._decode, self.recent.remember
        for raw in records:
            with suppress(*DECODE_ERRORS):
                if raw.key is not None and (event_id := decode(raw.value or b"").id) is not None:
                    raw.key.decode()
                    remember(raw.offset, raw.key, event_id)


async def recall(memories: Mapping[TP, Memory], held: Mapping[TP, range], read_back: ReadBack) -> None:
    """Fills memories from what the logs hold below the fences. Raises KafkaUnavailable."""
    spans = {tp: span for tp, memory in memories.items() if (span := memory.span(held[tp]))}
    if spans:
        async for tp, records in read_back(spans):
            memories[tp].take(records)
