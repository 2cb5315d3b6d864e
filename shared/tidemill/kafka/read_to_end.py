"""Reading topics to the end that they had when reading began: under a deadline, and past records that cannot be decoded.

async with Reader(kafka, {partition: 0}) as reader:
    async for fetched in read_to_end(reader):       # all records there are now
        ...
    await reader.fetch(1.0, 1000)                   # then, if needed, later records

letters = await read_topic(kafka, topic, decoder(DeadLetterRecord).decode, bad)     # a whole topic at once
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from aiokafka import TopicPartition

from tidemill.errors import KafkaUnavailable
from tidemill.kafka.client import KAFKA_SECONDS
from tidemill.kafka.reader import Reader
from tidemill.kafka.topics import offset_ranges
from tidemill.records import DECODE_ERRORS
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings

T = TypeVar("T")
Bad = Callable[[Any, Exception], None]
"""Gets a record that cannot be decoded, and the reason."""

log = get_logger(__name__)

FETCH_SECONDS, FETCH_RECORDS = 0.5, 50_000


async def read_to_end(
    reader: Reader, ends: Mapping[TopicPartition, int] | None = None, silent_seconds: float = KAFKA_SECONDS
) -> AsyncIterator[dict[TopicPartition, list[Any]]]:
    """Yields, by partition, the records below `ends` (default: the ends now) that the reader has not read, and perhaps some later ones.

    A slice may be empty. Raises KafkaUnavailable when records are missing and none has come for `silent_seconds` (Kafka's client would wait
    for ever), and the errors of the reader.
    """
    ends = await reader.ends() if ends is None else ends
    moved = time.monotonic()
    while missing := [target for target, end in ends.items() if reader.next[target] < end]:
        before = dict(reader.next)
        yield await reader.fetch(FETCH_SECONDS, FETCH_RECORDS)
        if reader.next != before:
            moved = time.monotonic()
        elif time.monotonic() - moved > silent_seconds:
            target = missing[0]
            raise KafkaUnavailable(
                f"{target.topic}[{target.partition}] goes up to {ends[target]}, but nothing has come from {reader.next[target]} on"
                f" for {silent_seconds:g} s",
                mend="start Kafka, or look at the brokers' logs",
            )


async def read_topic(
    kafka: KafkaSettings, topic: str, decode: Callable[[Any], T], bad: Bad, silent_seconds: float = KAFKA_SECONDS
) -> list[T]:
    """All records that a topic holds now, in the order of each partition; none if there is no such topic. Raises KafkaUnavailable.

    `bad` gets each record that cannot be decoded. The record is skipped, unless `bad` raises.
    """
    held = {target: found for target, found in (await offset_ranges(kafka, topic)).items() if found.begin < found.end}
    decoded: list[T] = []
    if held:
        async with Reader(kafka, {target: found.begin for target, found in held.items()}) as reader:
            async for fetched in read_to_end(reader, silent_seconds=silent_seconds):
                decoded += decoded_of(fetched, decode, bad)
    return decoded


def decoded_of(fetched: Mapping[TopicPartition, Iterable[Any]], decode: Callable[[Any], T], bad: Bad) -> Iterator[T]:
    """The decoded records of a slice; `bad` gets those that cannot be decoded."""
    for records in fetched.values():
        for record in records:
            try:
                yield decode(record.value or b"")
            except DECODE_ERRORS as error:
                bad(record, error)


def logged(record: Any, error: Exception) -> None:
    """The usual `bad`: a warning that says where the record stands."""
    log.warning("a record cannot be read", topic=record.topic, partition=record.partition, offset=record.offset, reason=str(error))
