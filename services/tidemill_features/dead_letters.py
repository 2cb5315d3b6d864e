"""Writing refused records to the dead-letter topic, before their batch is applied."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, Self

from aiokafka import AIOKafkaProducer

from tidemill.errors import KafkaRefused, KafkaUnavailable
from tidemill.kafka.client import close_producer, kafka_errors, start_producer
from tidemill.kafka.waves import Record, send_wave
from tidemill.records import DeadLetterRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.dead_letters import letter_record

ANSWER_SECONDS = 5.0


class DeadLetters(Protocol):
    """The place for records that the fold refuses."""

    async def send(self, letters: Sequence[DeadLetterRecord]) -> None:
        """Returns once the letters are written. After Unavailable that is unknown: call again with the same letters."""
        ...


class DeadLetterTopic:
    """The dead-letter topic of a project. Its one partition keeps the order of refusal. The first letter opens the connection."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._producer: AIOKafkaProducer | None = None
        self._one_at_a_time = asyncio.Lock()  # `send_wave` requires it; the partitions of a load are folded concurrently

    async def send(self, letters: Sequence[DeadLetterRecord]) -> None:
        """Writes the letters and waits for all replicas. Raises KafkaUnavailable after a few seconds, perhaps with some of them written."""
        wave = [letter_record(letter, None if letter.key is None else letter.key.encode()) for letter in letters]
        async with self._one_at_a_time:
            await self._send(wave)

    async def _send(self, wave: Sequence[Record]) -> None:
        try:
            with kafka_errors(self._settings):
                async with asyncio.timeout(ANSWER_SECONDS):
                    self._producer = self._producer or await start_producer(self._settings)
                    await send_wave(self._producer, {(self._topic, 0): wave})
        except (KafkaRefused, KafkaUnavailable) as error:
            await self._close()
            raise KafkaUnavailable(
                f"{len(wave)} dead letters cannot be written: {error.message}",
                mend="start Kafka, or look at the rights on the dead-letter topic",
            ) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._close()

    async def _close(self) -> None:
        """Disconnect. Letters not acknowledged are given up: the worker sends them again."""
        made, self._producer = self._producer, None
        if made is not None:
            await close_producer(made, timeout_seconds=0.1)
