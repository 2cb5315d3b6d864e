"""What a partition's log had lately, read again when a worker takes the partition over: no store has it, and the log says it all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from aiokafka import TopicPartition
from faust.types import TP

from tidemill.kafka.client import kafka_away
from tidemill.kafka.reader import Reader
from tidemill.kernel.fold import LogEntry
from tidemill.kernel.recent import Recent
from tidemill.records import KafkaRecord
from tidemill.runtime.settings import KafkaSettings

FIRST_RECORDS = 10_000
FETCH_RECORDS = 20_000
FETCH_SECONDS = 1.0
FETCHES = 10  # so many in a row that bring nothing mean that Kafka is away
Decode = Callable[[int, bytes | None, bytes | None], LogEntry]


class ReadBack(Protocol):
    """The records of a partition from one offset to another, in pieces."""

    def __call__(self, tp: TP, start: int, end: int) -> AsyncIterator[Sequence[KafkaRecord]]:
        """Raises KafkaUnavailable."""


def read_back_from(kafka: KafkaSettings) -> ReadBack:
    """Records as Kafka has them."""

    async def read_back(tp: TP, start: int, end: int) -> AsyncIterator[Sequence[KafkaRecord]]:
        target = TopicPartition(*tp)
        async with Reader(kafka, {target: start}) as reader:
            silent = 0
            while reader.next[target] < end:
                fetched = await reader.fetch(FETCH_SECONDS, FETCH_RECORDS)
                silent = 0 if fetched else silent + 1
                if silent == FETCHES:
                    raise kafka_away(kafka, TimeoutError(f"no record of {tp.topic}[{tp.partition}] from {reader.next[target]} on"))
                yield [record for record in fetched.get(target, ()) if record.offset < end]

    return read_back


async def recall(for_ms: int, decode: Decode, read_back: ReadBack, tp: TP, held: range) -> Recent:
    """The memory of a log after the offsets `held`. It is read from so far back that whatever lies before is forgotten.

    `for_ms`: for how long ids are remembered. Raises KafkaUnavailable.
    """
    records = FIRST_RECORDS
    while True:
        start = max(held.start, held.stop - records)
        found, reaches = await _told(Recent(for_ms), decode, read_back(tp, start, held.stop), start + (held.stop - start) // 10)
        if reaches or start == held.start:
            return found
        records *= 4


async def _told(recent: Recent, decode: Decode, pieces: AsyncIterator[Sequence[KafkaRecord]], early: int) -> tuple[Recent, bool]:
    """The memory of these records, and whether all those before the offset `early` are forgotten."""
    newest_ms, early_ms = 0, None
    async for piece in pieces:
        for raw in piece:
            if raw.offset >= early and early_ms is None:
                early_ms = newest_ms
            record = decode(raw.offset, raw.key, raw.value).record
            if record is not None and raw.key is not None and record.id is not None:
                recent.again(raw.key, record.id, record.known)
                newest_ms = max(newest_ms, record.known)
    return recent, early_ms is not None and early_ms + recent.kept_ms < newest_ms
