"""Writing events that came over HTTP to their application topics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from tidemill.errors import KafkaUnavailable
from tidemill.kafka.client import close_producer, start_producer
from tidemill.kafka.waves import Headers
from tidemill.kernel.keys import partition_of
from tidemill.records import Position
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings

log = get_logger(__name__)

ACKNOWLEDGE_SECONDS = 10.0
_MEND = "send the whole request again; events with the same id are folded once"


class Message(NamedTuple):
    """One event on its way to Kafka. Its key decides about its partition, of those that the topic has."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


class Publisher:
    """One producer for all requests, so events that arrive together share batches. Call `start` before use, `close` after."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect. Raises KafkaUnavailable."""
        self._producer = await start_producer(self._settings)

    async def close(self) -> None:
        """Send the queued messages and disconnect."""
        made, self._producer = self._producer, None
        if made is not None:
            await close_producer(made)

    async def publish(self, messages: Sequence[Message]) -> list[Position]:
        """Write messages, and return the position of each once all are acknowledged.

        Raises KafkaUnavailable: some may be written already, or will be when Kafka returns.
        """
        made = self._producer
        if made is None:
            raise KafkaUnavailable("Kafka is away, nothing was written", mend="send the request again later")
        sent: list[asyncio.Future[RecordMetadata]] = []
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                counts = {topic: len(await made.partitions_for(topic)) for topic in {message.topic for message in messages}}
                for topic, key, value, headers in messages:
                    sent.append(await made.send(topic, value, key, partition_of(key, counts[topic]), headers=list(headers)))
                await asyncio.wait(sent)
            written = (future.result() for future in sent)
            return [(found.topic, int(found.partition), int(found.offset)) for found in written]
        except TimeoutError:
            for future in sent:
                future.add_done_callback(_forget)
            detail = f"Kafka did not acknowledge within {ACKNOWLEDGE_SECONDS:g} s; some events may be written"
            raise KafkaUnavailable(detail, mend=_MEND) from None
        except KafkaError as error:
            await self._replace(made, error)
            raise KafkaUnavailable(f"Kafka refused: {type(error).__name__}; some events may be written", mend=_MEND) from error

    async def _replace(self, made: AIOKafkaProducer, error: KafkaError) -> None:
        """Start a new producer: an idempotent producer cannot go on after a failure (see KafkaRefused)."""
        if error.retriable or self._producer is not made:
            return
        log.error("starting a new producer", reason=repr(error))
        self._producer = None
        await close_producer(made)
        await self.start()


def _forget(sent: asyncio.Future[RecordMetadata]) -> None:
    """Retrieve the error of a record that no code waits for any more, so that asyncio does not report it."""
    if not sent.cancelled():
        sent.exception()
