"""Reading topics from positions that a store keeps, and never past a hole.

aiokafka resets, skips and re-reads in more cases than one would like; here each slice of records must start where the last one ended, by our own
book-keeping, and positions must lie in what Kafka holds. With the checksum of the last record a store has, that record is read once more and
compared, so that a topic which was truncated or made anew is refused.
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

    `proofs`: checksums.proof_of the record before a position, where it is known. Every method raises TopicRecreated when Kafka does not hold the
    records between what was read and what comes next.
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
                mend="records expired, or were deleted, before they were read: restore them, or begin the view anew under another name",
            )
        if position == begin:
            self._proofs.pop(target, None)  # the record before is no longer there to compare
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
