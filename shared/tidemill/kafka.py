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
import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiokafka.conn
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError, ProducerClosed
from aiokafka.producer.message_accumulator import BatchBuilder

from tidemill.clock import now_ms
from tidemill.errors import KafkaRefused, KafkaUnavailable, RecordTooLarge, TidemillError
from tidemill.kafka_connection import Connection
from tidemill.logs import get_logger
from tidemill.settings import KafkaSettings

log = get_logger(__name__)
aiokafka.conn.AIOKafkaConnection = Connection  # of every client: aiokafka has no setting for it

MAX_BATCH_BYTES = 1_048_588
"""The largest batch, hence record, of any topic: Kafka's own default of `max.message.bytes`."""

FETCH_BYTES = 2 * MAX_BATCH_BYTES
REQUEST_TIMEOUT_MS = 10_000
RETRY_SECONDS = 0.2
METADATA_SECONDS = 0.1

GATHERING: Mapping[str, Any] = {"fetch_min_bytes": MAX_BATCH_BYTES, "fetch_max_wait_ms": 500}
"""Options of a consumer that may be half a second late: the broker answers with much, or with what has come in that time.

By default it answers every record as soon as it comes, which costs the broker and the consumer more than what they do with the record.
"""

Headers = list[tuple[str, bytes]]  # aiokafka takes a list and nothing else
Record = tuple[bytes | None, bytes | None, Headers]
"""Key, value, headers."""


def producer(settings: KafkaSettings, **overrides: Any) -> AIOKafkaProducer:
    """An idempotent producer that waits for all replicas, to be started by the caller and closed by `close_producer`.

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
    made._message_accumulator._batch_ttl = math.inf  # see the module's text; aiokafka has no setting for it
    _pace_metadata(made.client)
    return made


async def close_producer(producer: AIOKafkaProducer, timeout_seconds: float = 10.0) -> None:
    """Send what is queued, then close. When the brokers do not answer in time the rest is given up: its senders get ProducerClosed.

    aiokafka's own `stop` would wait for ever while Kafka is away.
    """
    flushed = asyncio.ensure_future(producer.flush())
    await asyncio.wait({flushed}, timeout=timeout_seconds)
    if not flushed.done():
        log.warning("closing a producer with records unsent", timeout_seconds=timeout_seconds)
        flushed.cancel()
        await _abandon(producer)
    await producer.stop()


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End a producer's sender whatever it waits for, and fail all that is queued. aiokafka offers no way, hence its private parts."""
    sender, queue = producer._sender.sender_task, producer._message_accumulator
    while not sender.done():  # a cancelled sender waits for its requests, which a second cancel ends
        sender.cancel()
        await asyncio.wait({sender}, timeout=0.2)
    unsent = [batch for batches in queue._batches.values() for batch in batches]
    queue._pending_batches.update(unsent)  # where a failed one looks for itself
    queue.fail_all(ProducerClosed())
    for batch in unsent:
        batch._drain_waiter.exception()  # seen: asyncio need not complain that nobody looked


def consumer(settings: KafkaSettings, *topics: str, group: str | None = None, **overrides: Any) -> AIOKafkaConsumer:
    """A consumer that never commits by itself and never resets its position silently, to be started and stopped by the caller.

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
    _pace_metadata(made._client)
    return made


def _pace_metadata(client: AIOKafkaClient) -> None:
    """Make a client wait before it asks for the metadata of the same topics again (see the module's text; aiokafka has no setting for it)."""
    ask = client._metadata_update
    asked, again_at = frozenset[str](), -math.inf

    async def ask_at_a_pace(cluster: ClusterMetadata, topics: Collection[str]) -> bool:
        nonlocal asked, again_at
        now = asyncio.get_running_loop().time
        if now() < again_at and asked == frozenset(topics):
            await asyncio.sleep(again_at - now())
        asked, again_at = frozenset(topics), now() + METADATA_SECONDS
        return bool(await ask(cluster, topics))

    client._metadata_update = ask_at_a_pace


async def close_consumer(consumer: AIOKafkaConsumer, timeout_seconds: float = 10.0) -> None:
    """Leave the group and disconnect, for a while at most; never raises. aiokafka's own `stop` may wait for ever, or end in CancelledError."""
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping}, timeout=timeout_seconds)
    if not stopping.done():
        log.warning("closing a consumer that does not end", timeout_seconds=timeout_seconds)
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=RETRY_SECONDS)
    stopping.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, whatever it was


async def send_wave(producer: AIOKafkaProducer, wave: Mapping[tuple[str, int], Sequence[Record]]) -> dict[tuple[str, int], tuple[int, int]]:
    """Write records to (topic, partition)s and return the offsets (first, last) each partition gave them, once all are acknowledged.

    The records of a partition keep their order: a batch leaves only after the one before it was acknowledged. Partitions go side by side.
    Waits and repeats for as long as Kafka is away. Do not run two waves to the same partition at once.

    Raises RecordTooLarge (nothing was sent), KafkaRefused (see there), KafkaUnavailable (the producer was closed meanwhile). When cancelled, what was handed over may still be written: close
    the producer before another writes the same records. Empty partitions are left out of the result.
    """
    batches = {target: _batches(producer, target, records) for target, records in wave.items() if records}
    if len(batches) == 1:  # the common case of a lone record, without the cost of tasks
        ((target, queue),) = batches.items()
        return {target: await _send_in_order(producer, target, queue)}
    sent = [asyncio.ensure_future(_send_in_order(producer, target, queue)) for target, queue in batches.items()]
    try:
        offsets = await asyncio.gather(*sent)
    except BaseException:
        for task in sent:
            task.cancel()
        await asyncio.gather(*sent, return_exceptions=True)
        raise
    return dict(zip(batches, offsets, strict=True))


def _batches(producer: AIOKafkaProducer, target: tuple[str, int], records: Sequence[Record]) -> list[BatchBuilder]:
    """Fill as few batches as hold the records, in order."""
    batches, done, time_ms = [], 0, now_ms()
    while done < len(records):
        batch = producer.create_batch()
        done += _fill(batch, records, done, time_ms)
        if batch.size() > MAX_BATCH_BYTES:  # a batch takes its first record whatever its size
            raise RecordTooLarge(*target, size_bytes=batch.size(), limit_bytes=MAX_BATCH_BYTES)
        batches.append(batch)
    return batches


def _fill(batch: BatchBuilder, records: Sequence[Record], start: int, time_ms: int) -> int:
    """Add records from `start` until the batch is full and return how many it took.

    Speaks to the C builder inside the batch: `BatchBuilder.append` costs more than twice as much per record.
    """
    append = batch._builder.append
    count = 0
    for key, value, headers in records[start:] if start else records:
        if append(count, time_ms, key, value, headers) is None:
            break
        count += 1
    batch._relative_offset = count
    batch.close()
    return count


async def _send_in_order(producer: AIOKafkaProducer, target: tuple[str, int], batches: Sequence[BatchBuilder]) -> tuple[int, int]:
    first = last = -1
    for batch in batches:
        offset = await _acknowledged(producer, target, batch)
        first = offset if first < 0 else first
        last = offset + batch.record_count() - 1
    return first, last


async def _acknowledged(producer: AIOKafkaProducer, target: tuple[str, int], batch: BatchBuilder) -> int:
    """The offset of a batch's first record, once all replicas have it."""
    topic, partition = target
    while True:
        try:
            handed_over = await producer.send_batch(batch, topic, partition=partition)
            break
        except KafkaError as error:  # nothing was handed over: no metadata yet
            if not error.retriable:
                raise _refused(target, error) from error
            log.warning("waiting to write", topic=topic, partition=partition, reason=repr(error))
            await asyncio.sleep(RETRY_SECONDS)
        except AssertionError as error:  # aiokafka's way to say that there is no such partition
            raise _refused(target, error) from error
    try:
        return int((await handed_over).offset)
    except KafkaError as error:
        raise _refused(target, error) from error


def _refused(target: tuple[str, int], error: Exception) -> TidemillError:
    if isinstance(error, ProducerClosed):
        return KafkaUnavailable(
            f"the producer was closed before a batch for {target[0]}[{target[1]}] was acknowledged", mend="send it again"
        )
    return KafkaRefused(
        f"Kafka refused a batch for {target[0]}[{target[1]}]: {type(error).__name__} {error}".rstrip(),
        mend="close this producer and start another; if it happens again, look at the topic's configuration and rights",
    )


@asynccontextmanager
async def admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client. Raises KafkaUnavailable for whatever Kafka's client raises inside."""
    client = AIOKafkaAdminClient(**settings.client_options(), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        await client.start()
        yield client
    except (KafkaError, TimeoutError) as error:
        raise KafkaUnavailable(
            f"Kafka at {settings.bootstrap_servers} failed: {type(error).__name__} {error}".rstrip(),
            mend="start it, or correct KAFKA_BOOTSTRAP_SERVERS",
        ) from error
    finally:
        await client.close()


async def wait_for_kafka(settings: KafkaSettings, deadline_seconds: float | None = 60.0) -> None:
    """Return once the cluster answers. Raises KafkaUnavailable after the deadline (None: never), naming the last reason."""
    reason = "no answer"
    try:
        async with asyncio.timeout(deadline_seconds):
            while True:
                try:
                    async with admin(settings) as client:
                        await client.list_topics()
                    return
                except KafkaUnavailable as error:
                    if reason != error.message:
                        reason = error.message
                        log.warning("waiting for Kafka", bootstrap_servers=settings.bootstrap_servers, reason=reason)
                await asyncio.sleep(RETRY_SECONDS)
    except TimeoutError:
        raise KafkaUnavailable(
            f"Kafka at {settings.bootstrap_servers} was not ready after {deadline_seconds:g} s: {reason}",
            mend="start it, or correct KAFKA_BOOTSTRAP_SERVERS",
        ) from None
