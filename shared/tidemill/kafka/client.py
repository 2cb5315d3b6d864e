"""Kafka through aiokafka: producers and consumers, with options that lose no record.

Producers and consumers must be made inside a running loop (a rule of aiokafka). Facts about aiokafka 0.14, and what follows:

- An idempotent producer numbers the records of a partition when it first sends a batch. It repeats retriable errors without limit, with the
  same numbers, so no record is doubled or reordered. But a batch that *fails* leaves a hole in the numbers, and Kafka refuses every later
  batch to that partition (OutOfOrderSequenceNumber). So we refuse too large records before sending, and `KafkaRefused` means: new producer.
- A batch also fails when its partition has no leader for `request_timeout_ms`; `producer` lifts that limit.
- A consumer may silently skip a batch larger than `max_partition_fetch_bytes` (aiokafka #1173), and silently resets a position out of
  range. `consumer` fetches twice the largest batch and raises when a position is out of range.
- While a broker is away or a partition has no leader, a client asks for metadata again as soon as it gets an error: a thousand times a
  second, a core of CPU for each producer that has records, just when the broker needs CPU to start. Ours ask ten times a second, as
  Kafka's own do.

We do not compress: aiokafka has only gzip built in, and gzip costs more per record than all other work together.
A broker may still compress a topic (`compression.type`).
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
"""The longest wait for an answer of Kafka: longer than any request to a healthy broker takes."""
RENEW_SECONDS = 3600.0
"""How often who reads without a group's members commits its position again: Kafka forgets one that is a week old (`offsets.retention.minutes`)."""


def kafka_away(settings: KafkaSettings, error: Exception) -> KafkaUnavailable:
    """An error of Kafka's client as a KafkaUnavailable."""
    reason = (
        str(error) if isinstance(error, KafkaError) else f"{type(error).__name__} {error}".rstrip()
    )  # a KafkaError names its kind itself
    return KafkaUnavailable(f"Kafka at {settings.bootstrap_servers}: {reason}", mend="start it, or correct KAFKA_BOOTSTRAP_SERVERS")


@contextmanager
def kafka_errors(settings: KafkaSettings) -> Iterator[None]:
    """Raises KafkaUnavailable for errors of Kafka's client inside, and for a deadline that passes inside."""
    try:
        yield
    except (KafkaError, TimeoutError) as error:
        raise kafka_away(settings, error) from error


GATHERING: Mapping[str, Any] = {"fetch_min_bytes": MAX_BATCH_BYTES, "fetch_max_wait_ms": 500}
"""Options of a consumer that may be half a second late: the broker answers when it has a full batch, or after that time.

By default it answers as soon as one record comes, which costs broker and consumer more than their work on the record.
"""

_LONGEST_GATHERING_MS = 2_000  # other requests of the consumer wait until the broker has answered


def gathering(seconds: float) -> Mapping[str, Any]:
    """`GATHERING` for a consumer whose records are used every so many seconds only: it may be late by a quarter of that, up to two seconds."""
    wait_ms = int(min(max(seconds * 250, GATHERING["fetch_max_wait_ms"]), _LONGEST_GATHERING_MS))
    return {**GATHERING, "fetch_max_wait_ms": wait_ms}


RARE: Mapping[str, Any] = {"fetch_max_wait_ms": 5_000}
"""Options of a consumer of a topic that seldom gets a record. The broker still answers at once when one comes; while none does, it is asked
ten times less often than by default. Such a consumer should ask nothing else meanwhile: its other requests wait until this one is answered.
"""


def producer(settings: KafkaSettings, **overrides: Any) -> AIOKafkaProducer:
    """An idempotent producer that waits for all replicas. The caller starts it and calls `close_producer`; `started_producer` does both.

    It repeats a request after ten seconds without an answer, without limit.
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
    """A connected producer; close it by `close_producer`. Raises KafkaUnavailable.

    Without the deadline aiokafka would wait for ever for the number that a broker gives to an idempotent producer.
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
    """A connected producer, closed at the end. Raises KafkaUnavailable, also for errors of Kafka's client inside."""
    made = await start_producer(settings, start_seconds)
    try:
        with kafka_errors(settings):
            yield made
    finally:
        await close_producer(made, close_seconds)


async def close_producer(producer: AIOKafkaProducer, timeout_seconds: float = 10.0) -> None:
    """Send all queued records, then close. Records not acknowledged in time are given up: their senders get ProducerClosed.

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
    """A consumer that never commits by itself and never resets its position silently. `started_consumer` also starts and stops it.

    `getmany` raises NoOffsetForPartitionError for a partition without a committed offset, and OffsetOutOfRangeError for a position that
    the topic no longer holds: seek every assigned partition, or pass `auto_offset_reset`. Records of aborted transactions are left out.
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
    """A connected consumer, closed at the end. Raises KafkaUnavailable, also for errors of Kafka's client inside."""
    made = consumer(settings, *topics, group=group, **overrides)
    try:
        with kafka_errors(settings):
            async with asyncio.timeout(KAFKA_SECONDS):
                await made.start()
            yield made
    finally:
        await close_consumer(made)


async def close_consumer(consumer: AIOKafkaConsumer, timeout_seconds: float = 10.0) -> None:
    """Leave the group and disconnect before the time-out; never raises. aiokafka's own `stop` may wait for ever or raise CancelledError."""
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping}, timeout=timeout_seconds)
    if not stopping.done():
        log.warning("closing a consumer that does not end", timeout_seconds=timeout_seconds)
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=RETRY_SECONDS)
    stopping.add_done_callback(lambda task: task.cancelled() or task.exception())  # take the error, so that asyncio does not complain
