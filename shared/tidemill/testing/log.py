"""The twin of Kafka: topics with partitions. A partition is a list of records that grows at its end and may lose its beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar


class TopicRecord(NamedTuple):
    """A record, with the attributes of Kafka's client. `timestamp`: when it was published, epoch ms."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


R = TypeVar("R")


class PartitionRecords(Generic[R]):
    """One partition. `records`: all records from offset 0 on; `start`: the first offset that can still be read."""

    def __init__(self) -> None:
        self.records: list[R] = []
        self.start = 0

    @property
    def end(self) -> int:
        """The next offset."""
        return len(self.records)

    def read(self, offset: int, limit: int | None = None) -> list[R]:
        """The records from an offset on. Raises IndexError unless the log has this offset or ends there."""
        if not self.start <= offset <= self.end:
            raise IndexError(f"offset {offset} is not among {self.start} to {self.end}")
        return self.records[offset : None if limit is None else offset + limit]


class MemoryKafka:
    """All topics by name. `partitions`: how many partitions each topic has at first."""

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self._topics: dict[str, list[PartitionRecords[TopicRecord]]] = {}
        for topic, count in partitions.items():
            self.create(topic, count)

    def create(self, topic: str, count: int) -> None:
        """Make a topic with so many partitions, or give it those that it lacks."""
        found = self._topics.setdefault(topic, [])
        found += [PartitionRecords[TopicRecord]() for _ in range(count - len(found))]

    def partitions(self, topic: str) -> list[PartitionRecords[TopicRecord]]:
        """The partitions of a topic. Raises KeyError."""
        return self._topics[topic]

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int = 0,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> TopicRecord:
        """Write a record. Raises KeyError for an unknown topic and IndexError for an unknown partition."""
        log = self._topics[topic][partition]
        record = TopicRecord(topic, partition, log.end, key, value, timestamp_ms, headers)
        log.records.append(record)
        return record
