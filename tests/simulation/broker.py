"""The broker: logs that grow, lose their tail or their beginning, or are made anew; and a consumer's view of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError
from faust.types import TP
from tests.simulation.network import Link, Process

from tidemill.records import DeadLetterRecord
from tidemill.testing.log import PartitionRecords


class Row:
    """A record. `before` is the record it was written after: what is read must hang together by it."""

    __slots__ = ("before", "key", "offset", "partition", "serialized_value_size", "timestamp", "topic", "value")
    headers = ()

    def __init__(self, topic: str, partition: int, offset: int, key: bytes, value: bytes, before: Row | None) -> None:
        self.topic, self.partition, self.offset, self.key, self.value, self.before = topic, partition, offset, key, value, before
        self.timestamp = 0
        self.serialized_value_size = len(value)


class Log(PartitionRecords[Row]):
    """One partition: the twin of Kafka's, whose records know each other."""

    def __init__(self, tp: TP) -> None:
        super().__init__()
        self.tp = tp

    def append(self, key: bytes, value: bytes) -> Row:
        """Write a record."""
        row = Row(self.tp.topic, self.tp.partition, self.end, key, value, self.records[-1] if self.records else None)
        self.records.append(row)
        return row

    def truncate(self, end: int) -> None:
        """Lose the tail; 0: the topic was made anew."""
        del self.records[end:]
        self.start = min(self.start, end)


class Broker:
    """All logs of one topic. `epoch` counts the times its data changed under its clients: who was connected has to connect anew.

    `lies`: share of fetches from which something is missing, skipped or repeated.
    """

    def __init__(self, topic: str, partitions: int, draw: random.Random) -> None:
        self.logs = {TP(topic, number): Log(TP(topic, number)) for number in range(partitions)}
        self.link = Link(KafkaConnectionError)
        self.lies = 0.0
        self.epoch = 0
        self.letters: set[tuple[int, int, str]] = set()
        self._draw = draw

    def held(self, partitions: Collection[TP]) -> tuple[dict[TP, int], dict[TP, int]]:
        """Begin and end of logs."""
        return {tp: self.logs[tp].start for tp in partitions}, {tp: self.logs[tp].end for tp in partitions}

    def read(self, positions: Mapping[TP, int], partitions: Collection[TP]) -> dict[TP, list[Row]]:
        """Some records of each partition from the positions on."""
        found: dict[TP, list[Row]] = {}
        for tp in sorted(partitions):
            log, at = self.logs[tp], positions[tp]
            if self.lies and self._draw.random() < self.lies:
                at = self._misplaced(log, at)
            elif not log.start <= at <= log.end:
                raise OffsetOutOfRangeError({tp: at})
            rows = log.records[at : at + self._draw.randint(1, 9)]
            if self.lies and len(rows) > 2 and self._draw.random() < self.lies:
                del rows[self._draw.randrange(1, len(rows) - 1)]
            if rows:
                found[tp] = rows
        return found

    def keep_letters(self, letters: Sequence[DeadLetterRecord]) -> None:
        """Append dead letters; they are known by partition, offset and value."""
        self.letters |= {(letter.source[1], letter.source[2], letter.value) for letter in letters}

    def _misplaced(self, log: Log, at: int) -> int:
        """Where a consumer may find itself: past an oversized batch (aiokafka #1173), or reset to the beginning, the end, or anywhere."""
        places = (at + 1, log.start, log.end, self._draw.randint(log.start, log.end))
        return min(max(self._draw.choice(places), log.start), log.end)


class Client:
    """A process's consumer: `delivery.Log`, with the positions of an aiokafka consumer."""

    def __init__(self, process: Process, broker: Broker) -> None:
        self.process = process
        self.broker = broker
        self.at: dict[TP, int] = {}
        self._epoch = broker.epoch

    async def held(self, partitions: Collection[TP]) -> dict[TP, range]:
        """First the beginnings, then the ends."""
        begins, _ = await self._ask(self.broker.held, partitions)
        _, ends = await self._ask(self.broker.held, partitions)
        return {tp: range(begins[tp], max(begins[tp], ends[tp])) for tp in partitions}

    async def seek_all(self, positions: Mapping[TP, int]) -> None:
        """Nobody is asked."""
        self.at |= positions

    async def fetch(self, partitions: set[TP], wait_seconds: float) -> dict[TP, list[Row]]:
        """What has come; when nothing has, what comes a moment later."""
        found: dict[TP, list[Row]] = await self._ask(self.broker.read, self.at, partitions)
        if not found and wait_seconds > 0:
            await asyncio.sleep(wait_seconds * self.process.draw.random())
            found = await self._ask(self.broker.read, self.at, partitions)
        self.at |= {tp: rows[-1].offset + 1 for tp, rows in found.items()}
        return found

    async def _ask(self, effect: Callable[..., Any], *args: Any) -> Any:
        try:
            return await self.process.ask(self.broker.link, self._connected, self._epoch, effect, *args)
        except KafkaConnectionError:  # only whoever hears of it connects anew: what is under way on the old connection does not
            self._epoch = self.broker.epoch
            raise

    def _connected(self, epoch: int, effect: Callable[..., Any], *args: Any) -> Any:
        if epoch != self.broker.epoch:  # records of another log must not be taken for those that follow: see decision 0009
            raise KafkaConnectionError("the connection was closed")
        return effect(*args)
