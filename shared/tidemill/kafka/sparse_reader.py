"""Reading a topic whose records belong to others: with offsets that hold no record, records that expire, and perhaps made anew meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from tidemill.kafka.reader import Reader, recreated
from tidemill.runtime.settings import KafkaSettings


class Witness(NamedTuple):
    """A record that was read before: its offset, and whether a record is this one."""

    offset: int
    is_same: Callable[[Any], bool]


class SparseReader(Reader):
    """A reader that passes over whatever Kafka no longer holds.

    `witnesses`: for a partition a record below its position; if Kafka still holds it, and another one lies there now, the topic was made
    anew (TopicRecreated). `expired(partition, count)` is called for offsets that Kafka deleted before they were read. A partition that was
    never read (position 0) begins where Kafka begins.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        positions: Mapping[TopicPartition, int],
        witnesses: Mapping[TopicPartition, Witness],
        expired: Callable[[TopicPartition, int], None],
        **overrides: Any,
    ) -> None:
        super().__init__(kafka, positions, **overrides)
        self._witnesses = dict(witnesses)
        self._expired = expired

    def _begin(self, target: TopicPartition, begin: int) -> int:
        position: int = self.next[target]
        if 0 < position < begin:
            self._expired(target, begin - position)
        self.next[target] = position = max(position, begin)
        witness = self._witnesses.get(target)
        if witness is None or witness.offset < begin:
            self._witnesses.pop(target, None)
            return position
        first: int = witness.offset
        return first

    async def _taken(self, fetched: dict[TopicPartition, list[Any]]) -> dict[TopicPartition, list[Any]]:
        fresh = {target: self._fresh(target, records) for target, records in fetched.items()}
        for target, position in self.next.items():
            self.next[target] = max(position, await self._consumer.position(target))
        return {target: records for target, records in fresh.items() if records}

    def _fresh(self, target: TopicPartition, records: list[Any]) -> list[Any]:
        witness = self._witnesses.pop(target, None)
        if witness is not None and records[0].offset == witness.offset and not witness.is_same(records[0]):
            raise recreated(target, self.next[target], f"the record at {witness.offset} is not the one that was read then")
        if records[0].offset >= self.next[target]:
            return records
        return [record for record in records if record.offset >= self.next[target]]
