"""A log to which one process alone writes. Every acknowledgement is compared, so that another writer shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition

from tidemill.errors import TidemillError
from tidemill.kafka.topics import offset_ranges
from tidemill.kafka.waves import Record, send_wave
from tidemill.runtime.settings import KafkaSettings


class PrivateLog:
    """The topic of a log, empty at first. `ends`: the next offset of each partition."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int) -> None:
        self._producer, self.topic = producer, topic
        self.ends = dict.fromkeys(range(partitions), 0)

    async def check_empty(self, settings: KafkaSettings) -> None:
        """Raises TidemillError when it holds records already, KafkaUnavailable."""
        for (topic, partition), held in (await offset_ranges(settings, self.topic)).items():
            if held.end:
                raise self._another(topic, partition, 0)

    async def send(self, records: Mapping[int, Sequence[Record]]) -> None:
        """Writes records of its partitions and returns once all are acknowledged.

        Raises TidemillError when somebody else wrote, KafkaUnavailable, KafkaRefused. Send nothing more then.
        """
        wave = {(self.topic, partition): part for partition, part in records.items() if part}
        for (topic, partition), (first, last) in (await send_wave(self._producer, wave)).items():
            if first != self.ends[partition] or last - first + 1 != len(wave[topic, partition]):
                raise self._another(topic, partition, self.ends[partition])
            self.ends[partition] = last + 1

    def places(self) -> dict[TopicPartition, int]:
        """`ends` by topic and partition."""
        return {TopicPartition(self.topic, partition): end for partition, end in self.ends.items()}

    def _another(self, topic: str, partition: int, at: int) -> TidemillError:
        return TidemillError(
            f"somebody else writes to {topic}: another record lies in partition {partition} at {at}",
            mend="find the process and stop it; then run tidemill apply again, which begins with another log",
        )
