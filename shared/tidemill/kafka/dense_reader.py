"""Reading topics from positions that a store keeps, and never past a hole.

aiokafka resets, skips and re-reads in more cases than one would like; here each slice of records must start where the last one ended, by our own
book-keeping, and positions must lie in what Kafka holds. With the checksum of the last record a store has, that record is read once more and
compared, so that a topic which was truncated or made anew is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tidemill.checksums import proof_of
from tidemill.errors import KafkaUnavailable, TopicRecreated
from tidemill.kafka.client import close_consumer, consumer
from tidemill.runtime.settings import KafkaSettings

KAFKA_SECONDS = 15.0


class DenseReader:
    """Reads all given partitions. `next`: the offset after the last record given out, by partition.

    `positions`: where to begin; `proofs`: fences.proof_of the record before, where it is known; `overrides`: options
    of the consumer. Every method raises KafkaUnavailable, and
    TopicRecreated when Kafka does not hold the records between what was read and what comes next.
    """

    def __init__(
        self, kafka: KafkaSettings, positions: Mapping[TopicPartition, int], proofs: Mapping[TopicPartition, int], **overrides: Any
    ) -> None:
        self.next = dict(positions)
        self._kafka = kafka
        self._consumer = consumer(kafka, **overrides)
        self._proofs = dict(proofs)

    async def start(self) -> dict[TopicPartition, int]:
        """Connects and places itself; returns the end of each partition."""
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                await self._consumer.start()
                begins = await self._consumer.beginning_offsets(list(self.next))
            ends = await self.ends()
        except (KafkaError, TimeoutError) as error:
            raise self._away(error) from error
        self._consumer.assign(list(self.next))
        for target, position in self.next.items():
            if position < begins[target]:
                raise TopicRecreated(
                    f"{target.topic}[{target.partition}] was read up to offset {position}, but Kafka begins at {begins[target]}",
                    mend="records expired, or were deleted, before they were read: restore them, or begin the view anew under another name",
                )
            if position == begins[target]:
                self._proofs.pop(target, None)  # the record before is no longer there to compare
            self._consumer.seek(target, position - (target in self._proofs))
        return ends

    async def stop(self) -> None:
        """Disconnects; never raises."""
        await close_consumer(self._consumer, KAFKA_SECONDS)

    async def fetch(self, wait_seconds: float, most: int) -> dict[TopicPartition, list[Any]]:
        """New records by partition, in offset order: at most about `most`, nothing when none came in time."""
        try:
            fetched = await self._consumer.getmany(timeout_ms=int(wait_seconds * 1000), max_records=most)
        except KafkaError as error:
            raise self._away(error) from error
        fresh = {target: self._dense(target, records) for target, records in fetched.items()}
        return {target: records for target, records in fresh.items() if records}

    async def ends(self) -> dict[TopicPartition, int]:
        """The end of each partition now; it never lies before what was read."""
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                ends: dict[TopicPartition, int] = await self._consumer.end_offsets(list(self.next))
        except (KafkaError, TimeoutError) as error:
            raise self._away(error) from error
        for target, end in ends.items():
            if end < self.next[target]:
                raise recreated(target, self.next[target], f"Kafka ends at {end}")
        return ends

    def _dense(self, target: TopicPartition, records: list[Any]) -> list[Any]:
        position = self.next[target]
        proof = self._proofs.pop(target, None)
        start = position if proof is None else position - 1
        if records[0].offset != start or records[-1].offset - start != len(records) - 1:
            raise recreated(target, start, f"Kafka gives {len(records)} records from {records[0].offset} to {records[-1].offset}")
        if proof is not None and proof_of(records[0].key, records[0].value) != proof:
            raise recreated(target, position, f"the record at {start} is not the one that was read then")
        self.next[target] = records[-1].offset + 1
        return records if proof is None else records[1:]

    def _away(self, error: Exception) -> KafkaUnavailable:
        return KafkaUnavailable(
            f"Kafka at {self._kafka.bootstrap_servers}: {type(error).__name__} {error}".rstrip(),
            mend="start it, or correct KAFKA_BOOTSTRAP_SERVERS; reading goes on by itself",
        )


def recreated(target: TopicPartition, position: int, found: str) -> TopicRecreated:
    """The error of a topic that does not hold what was read."""
    return TopicRecreated(
        f"{target.topic}[{target.partition}] was read up to offset {position}, but {found}",
        mend="the topic was truncated, compacted or made anew: restore it, or move its table away to begin again from what Kafka has",
    )
