"""A wave: records for many partitions, in order within each partition, acknowledged before the call returns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed
from aiokafka.producer.message_accumulator import BatchBuilder

from tidemill.clock import now_ms
from tidemill.errors import KafkaRefused, KafkaUnavailable, RecordTooLarge, TidemillError
from tidemill.kafka.client import MAX_BATCH_BYTES, RETRY_SECONDS
from tidemill.kafka.patches import fill_batch
from tidemill.runtime.logs import get_logger

log = get_logger(__name__)

Headers = list[tuple[str, bytes]]  # aiokafka takes a list and nothing else
Record = tuple[bytes | None, bytes | None, Headers]
"""Key, value, headers."""


async def send_wave(producer: AIOKafkaProducer, wave: Mapping[tuple[str, int], Sequence[Record]]) -> dict[tuple[str, int], tuple[int, int]]:
    """Write records to (topic, partition)s. Returns, once all are acknowledged, the first and the last offset in each partition.

    The records of a partition keep their order: a batch leaves only after the batch before it was acknowledged. Different partitions are
    written concurrently. While Kafka is away it waits and repeats. Do not run two waves to the same partition at once.

    Raises RecordTooLarge (nothing was sent), KafkaRefused (see there), KafkaUnavailable (the producer was closed meanwhile). After a
    cancellation records may still be written: close the producer before another one writes the same records. Partitions without records
    are left out of the result.
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
    """The records in as few batches as possible, in order."""
    batches, done, time_ms = [], 0, now_ms()
    while done < len(records):
        batch = producer.create_batch()
        done += fill_batch(batch, records, done, time_ms)
        if batch.size() > MAX_BATCH_BYTES:  # a batch takes its first record whatever its size
            raise RecordTooLarge(*target, size_bytes=batch.size(), limit_bytes=MAX_BATCH_BYTES)
        batches.append(batch)
    return batches


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
        except KafkaError as error:  # nothing was sent: no metadata yet
            if not error.retriable:
                raise _refused(target, error) from error
            log.warning("waiting to write", topic=topic, partition=partition, reason=repr(error))
            await asyncio.sleep(RETRY_SECONDS)
        except AssertionError as error:  # so aiokafka says that there is no such partition
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
