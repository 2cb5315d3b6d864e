"""Kafka by aiokafka: producers, consumers, waves of records in order, topics as a project needs them.

Producers and consumers must be made inside a running loop (aiokafka's rule). What aiokafka 0.14 does, and what follows:

- An idempotent producer numbers the records of a partition when a batch first leaves. It repeats what may still succeed without limit, with
  the same number, so nothing is doubled or reordered. But a batch that *fails* leaves a hole: every later batch to that partition is then
  refused (OutOfOrderSequenceNumber). So records too large are refused before anything is sent, and `KafkaRefused` means: new producer.
- It gives up (and makes such a hole) when a partition has no leader for `request_timeout_ms`; `producer` lifts that limit.
- A batch larger than `max_partition_fetch_bytes` may be skipped by a consumer without a word (aiokafka #1173); a position out of range resets
  silently. `consumer` fetches twice the largest batch and raises when a position is out of range.
- While a broker is away or a partition has no leader it asks for metadata again as soon as it was refused: a thousand times a second, a core
  of CPU for each producer with something to send, just when the broker wants to start. Ours ask ten times a second, as Kafka's own do.

Nothing is compressed: the codecs built into aiokafka are gzip or none, and gzip costs more per record than everything else together.
A topic may still be compressed by its broker (`compression.type`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from tidemill.errors import KafkaUnavailable
from tidemill.kafka.patches import abandon, client_of, never_expire, pace_metadata
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings

log = get_logger(__name__)

MAX_BATCH_BYTES = 1_048_588
"""The largest batch, hence record, of any topic: Kafka's own default of `max.message.bytes`."""

FETCH_BYTES = 2 * MAX_BATCH_BYTES
REQUEST_TIMEOUT_MS = 10_000
RETRY_SECONDS = 0.2
KAFKA_SECONDS = 15.0
"""For an answer that a person or a loop waits for: longer than any request of a broker that is well."""


def kafka_away(settings: KafkaSettings, error: Exception) -> KafkaUnavailable:
    """What Kafka's client raised, as an error of ours."""
    reason = (
        str(error) if isinstance(error, KafkaError) else f"{type(error).__name__} {error}".rstrip()
    )  # a KafkaError names its kind itself
    return KafkaUnavailable(f"Kafka at {settings.bootstrap_servers}: {reason}", mend="start it, or correct KAFKA_BOOTSTRAP_SERVERS")


@contextmanager
def kafka_errors(settings: KafkaSettings) -> Iterator[None]:
    """Raises KafkaUnavailable for what Kafka's client raises inside, and for a deadline that passes there."""
    try:
        yield
    except (KafkaError, TimeoutError) as error:
        raise kafka_away(settings, error) from error


GATHERING: Mapping[str, Any] = {"fetch_min_bytes": MAX_BATCH_BYTES, "fetch_max_wait_ms": 500}
"""Options of a consumer that may be half a second late: the broker answers with much, or with what has come in that time.

By default it answers every record as soon as it comes, which costs the broker and the consumer more than what they do with the record.
"""


def producer(settings: KafkaSettings, **overrides: Any) -> AIOKafkaProducer:
    """An idempotent producer that waits for all replicas, to be started by the caller and closed by `close_producer`; `started_producer` does both.

    A request is repeated after ten seconds without an answer, and for as long as it takes.
    """
    options = {
        **settings.client_options(),
        "enable_idempotence": True,
        "acks": "all",
        "compression_type": None,
        "max_batch_size": MAX_BATCH_BYTES,
        "max_request_size": MAX_BATCH_BYTES,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "metadata_max_age_ms": 60_000,
    }
    made = AIOKafkaProducer(**options | overrides)
    never_expire(made)
    pace_metadata(made.client)
    return made


async def start_producer(settings: KafkaSettings, start_seconds: float = KAFKA_SECONDS) -> AIOKafkaProducer:
    """A producer that is connected, to be closed by `close_producer`. Raises KafkaUnavailable.

    By itself aiokafka would wait for ever for the number that a broker gives an idempotent producer.
    """
    made = producer(settings)
    try:
        with kafka_errors(settings):
            async with asyncio.timeout(start_seconds):
                await made.start()
    except BaseException:
        await close_producer(made, RETRY_SECONDS)
        raise
    return made


@asynccontextmanager
async def started_producer(
    settings: KafkaSettings, start_seconds: float = KAFKA_SECONDS, close_seconds: float = 10.0
) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that is connected, and closed at the end. Raises KafkaUnavailable, also for what Kafka's client raises inside."""
    made = await start_producer(settings, start_seconds)
    try:
        with kafka_errors(settings):
            yield made
    finally:
        await close_producer(made, close_seconds)


async def close_producer(producer: AIOKafkaProducer, timeout_seconds: float = 10.0) -> None:
    """Send what is queued, then close. When the brokers do not answer in time the rest is given up: its senders get ProducerClosed.

    aiokafka's own `stop` would wait for ever while Kafka is away.
    """
    flushed = asyncio.ensure_future(producer.flush())
    await asyncio.wait({flushed}, timeout=timeout_seconds)
    if not flushed.done():
        log.warning("closing a producer with records unsent", timeout_seconds=timeout_seconds)
        flushed.cancel()
        await abandon(producer)
    await producer.stop()


def consumer(settings: KafkaSettings, *topics: str, group: str | None = None, **overrides: Any) -> AIOKafkaConsumer:
    """A consumer that never commits by itself and never resets its position silently, to be started and stopped by the caller; `started_consumer` does both.

    A partition without a committed offset raises NoOffsetForPartitionError and a position the log no longer holds raises
    OffsetOutOfRangeError from `getmany`: seek every assigned partition, or pass `auto_offset_reset`.
    Records of aborted transactions are left out.
    """
    options = {
        **settings.client_options(),
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "max_partition_fetch_bytes": FETCH_BYTES,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "metadata_max_age_ms": 60_000,
    }
    made = AIOKafkaConsumer(*topics, **options | overrides)
    pace_metadata(client_of(made))
    return made


@asynccontextmanager
async def started_consumer(
    settings: KafkaSettings, *topics: str, group: str | None = None, **overrides: Any
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that is connected, and closed at the end. Raises KafkaUnavailable, also for what Kafka's client raises inside."""
    made = consumer(settings, *topics, group=group, **overrides)
    try:
        with kafka_errors(settings):
            async with asyncio.timeout(KAFKA_SECONDS):
                await made.start()
            yield made
    finally:
        await close_consumer(made)


async def close_consumer(consumer: AIOKafkaConsumer, timeout_seconds: float = 10.0) -> None:
    """Leave the group and disconnect, for a while at most; never raises. aiokafka's own `stop` may wait for ever, or end in CancelledError."""
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping}, timeout=timeout_seconds)
    if not stopping.done():
        log.warning("closing a consumer that does not end", timeout_seconds=timeout_seconds)
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=RETRY_SECONDS)
    stopping.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, whatever it was
