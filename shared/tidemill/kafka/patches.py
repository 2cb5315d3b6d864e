"""Every private part of aiokafka that tidemill uses: the faults and missing settings of 0.14, and our patches.

| what aiokafka does | mended by |
|---|---|
| a write to a connection that was just reset raises RuntimeError in uvloop; aiokafka expects OSError (aiokafka #1038), and its task ends silently | `Connection`, for every client |
| a batch fails when its partition has no leader for `request_timeout_ms`, which leaves a hole in the numbers of an idempotent producer | `never_expire` |
| `stop` of a producer waits for ever while Kafka is away | `abandon` |
| while a broker is away a client asks for metadata a thousand times a second, a core of CPU, just when the broker needs CPU to start | `pace_metadata` |
| `committed` of a consumer leaves out the metadata that was committed beside an offset | `committed_with_metadata` |
| after a rebalance a consumer goes to the committed positions and delivers from there before it calls anybody; `assignment` tells only another set of partitions, not another term | `assignment_of` |
| the admin client says that a group has committed nothing when its coordinator is starting, has moved or is unwell | `Admin`, for every admin client of services |
| `BatchBuilder.append` costs more than twice as much a record as the C builder inside it | `fill_batch` |

The version of aiokafka is bounded in pyproject.toml because of this module.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import aiokafka.conn
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError, ProducerClosed, for_code
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.commit import OffsetFetchRequest

METADATA_SECONDS = 0.1


class Connection(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's connection. A write to a closed one raises KafkaConnectionError; aiokafka then opens another."""

    def send(self, *args: Any, **options: Any) -> Any:
        """A request of Kafka's protocol."""
        return self._or_closed(super().send, *args, **options)

    def _send_sasl_token(self, *args: Any, **options: Any) -> Any:
        return self._or_closed(super()._send_sasl_token, *args, **options)

    def _or_closed(self, send: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return send(*args, **options)
        except KafkaError:  # it is a RuntimeError too
            raise
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


aiokafka.conn.AIOKafkaConnection = Connection  # for every client: aiokafka has no setting for it


class Admin(AIOKafkaAdminClient):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's admin client. An answer about a group's offsets that is an error of the whole group has no offsets in it, and raises that error."""

    async def _send_request(self, request: Any, node_id: int | None = None) -> Any:
        answer = await super()._send_request(request, node_id)
        if answer.API_KEY == OffsetFetchRequest.API_KEY and (code := getattr(answer, "error_code", 0)):
            raise for_code(code)(f"the offsets of group {request._consumer_group} cannot be told")
        return answer


def never_expire(producer: AIOKafkaProducer) -> None:
    """Let the producer repeat a batch for as long as its partition has no leader."""
    producer._message_accumulator._batch_ttl = math.inf


async def abandon(producer: AIOKafkaProducer) -> None:
    """End the sender of a producer, whatever it waits for, and fail all queued batches. aiokafka has no public way to do that."""
    sender, queue = producer._sender.sender_task, producer._message_accumulator
    while not sender.done():  # a cancelled sender waits for its requests; a second cancel ends them
        sender.cancel()
        await asyncio.wait({sender}, timeout=0.2)
    unsent = [batch for batches in queue._batches.values() for batch in batches]
    queue._pending_batches.update(unsent)  # a batch that fails removes itself from there
    queue.fail_all(ProducerClosed())
    for batch in unsent:
        batch._drain_waiter.exception()  # take the error, so that asyncio does not complain


def pace_metadata(client: AIOKafkaClient) -> None:
    """Make a client wait before it asks for the metadata of the same topics again."""
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


def client_of(consumer: AIOKafkaConsumer) -> AIOKafkaClient:
    """The client of a consumer; that of a producer is public."""
    return consumer._client


def fill_batch(
    batch: BatchBuilder, records: Sequence[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]], start: int, time_ms: int
) -> int:
    """Add records from `start` until the batch is full and return how many it took.

    It calls the C builder inside the batch: `BatchBuilder.append` costs more than twice as much per record.
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


async def committed_with_metadata(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, tuple[int, str]]:
    """The committed offset of each partition that has one, and the text that was committed beside it. Raises KafkaError."""
    found = await consumer._coordinator.fetch_committed_offsets(list(partitions))
    return {target: (at.offset, at.metadata) for target, at in found.items() if at.offset >= 0}


def assignment_of(consumer: AIOKafkaConsumer) -> object:
    """The present assignment of a group's consumer: another object after each rebalance, also when the partitions are the same."""
    subscription = consumer._subscription.subscription
    return None if subscription is None else subscription.assignment
