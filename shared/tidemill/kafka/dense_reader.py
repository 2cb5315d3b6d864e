"""Reading topics from positions that a store holds, and never past a hole.

aiokafka resets, skips and re-reads in several cases. Here each slice of records must start where the last one ended, by our own count, and
Kafka must hold every position. If the store knows the checksum of its last record, this reads that record again and compares: so it refuses
a topic that was truncated or created again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition

from tidemill.checksums import proof_of
from tidemill.errors import TopicRecreated
from tidemill.kafka.reader import Reader, recreated
from tidemill.runtime.settings import KafkaSettings


class DenseReader(Reader):
    """A reader of topics in which every offset is a record.

    `proofs`: `checksums.proof_of` the record before a position, if it is known. Every method raises TopicRecreated when Kafka no longer
    holds the records that follow the last one read.
    """

    def __init__(
        self, kafka: KafkaSettings, positions: Mapping[TopicPartition, int], proofs: Mapping[TopicPartition, int], **overrides: Any
    ) -> None:
        super().__init__(kafka, positions, **overrides)
        self._proofs = dict(proofs)

    def _begin(self, target: TopicPartition, begin: int) -> int:
        position: int = self.next[target]
        if position < begin:
            raise TopicRecreated(
                f"{target.topic}[{target.partition}] was read up to offset {position}, but Kafka begins at {begin}",
                mend="records expired, or were deleted, before they were read: restore them, or give the view another name",
            )
        if position == begin:
            self._proofs.pop(target, None)  # Kafka no longer holds the record before, so there is nothing to compare
        return position - (target in self._proofs)

    async def _taken(self, fetched: dict[TopicPartition, list[Any]]) -> dict[TopicPartition, list[Any]]:
        fresh = {target: self._dense(target, records) for target, records in fetched.items()}
        return {target: records for target, records in fresh.items() if records}

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
