"""Faust with batched delivery: an agent gets slices of consecutive records, and a store, not Kafka, gives the position of each partition.

Stock Faust creates four tasks for every message. Here its aiokafka transport hands over one carrier message for each load of slices. The
slices of a load are handled concurrently, so their commands go to the store together. All other parts of Faust (group membership, flow
control, streams, agents) are used unchanged. Facts about faust-streaming 0.15 and aiokafka 0.14, and what follows:

- Faust drops slices during a rebalance, and aiokafka may skip an oversized batch or reset a position. So `delivery` decides which records
  are delivered, and from where.
- If `perform_seek` takes longer than `broker_request_timeout`, Faust's recovery task ends silently and nothing is ever fetched again. So
  partitions are placed inside `getmany`; while the store is away nothing is delivered.
- Faust acknowledges a message also when its agent raised, counts skipped messages as done, and a failed commit crashes the worker. So its
  acknowledgements are off, Kafka's committed offset is written for lag monitors only, and an exception in the handler ends the process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from time import monotonic
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage, Message

from tidemill.kafka.client import consumer
from tidemill.runtime import exits
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill_features.delivery import Delivery, Positions, Slice, loads

log = get_logger(__name__)

PAUSE_SECONDS = 0.5
SESSION_MS = 6_000  # the minimum of a broker by default; after this time another worker takes over from a killed one
EXIT_SOFTWARE = 70


Handler = Callable[[TP, Slice], Awaitable[None]]
"""Takes slices: of one partition in sequence, of several concurrently. To go back it sets `slice.chain.broken`. It must not raise."""


class _Thread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with the consumer of `kafka.client`."""

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        assert isinstance(transport, Transport)
        return consumer(transport.kafka, group=self.app.conf.id, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=SESSION_MS // 4)


class Consumer(driver.Consumer):
    """Delivers slices from the positions of the store."""

    transport: Transport

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.delivery = Delivery(self.transport.positions, self.transport.broken)
        self._committed: dict[TP, int] = {}

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Faust calls this after a rebalance; `getmany` will place the assigned partitions."""
        self.delivery.break_all()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """A slice being applied may finish, as the store's fence decides, but is not retried any more."""
        self.delivery.break_all()
        await super().on_partitions_revoked(revoked)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's signature
        """Yield the records of one fetch as loads of slices, partitions taking turns; a load carries the partition of its first slice."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
            return
        pieces = await self.delivery.slices(self.assignment(), self, monotonic(), timeout)
        if pieces is None:
            await self.sleep(PAUSE_SECONDS)
            return
        generation = self.app.consumer_generation_id
        for load in loads(pieces):
            if not self.flow_active or self.should_stop or generation != self.app.consumer_generation_id:
                return
            yield load[0][0], _carrier(load, generation)

    async def held(self, partitions: Collection[TP]) -> dict[TP, range]:
        """See `delivery.Log`."""
        begins, ends = await self.earliest_offsets(*partitions), await self.highwaters(*partitions)
        return {tp: range(begins[tp], ends[tp]) for tp in partitions}

    async def seek_all(self, positions: Mapping[TP, int]) -> None:
        """See `delivery.Log`."""
        await self.seek_wait(positions)

    async def fetch(self, partitions: set[TP], wait_seconds: float) -> Mapping[TP, Sequence[Any]]:
        """See `delivery.Log`."""
        fetched: Mapping[TP, Sequence[Any]] = await self._getmany(partitions, wait_seconds)
        return fetched

    def on_buffer_full(self, tp: TP) -> None:
        """A full queue slows the fetcher by itself; Faust would also stop fetching the partition for a second."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See `on_buffer_full`."""

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Faust counts a carrier as one record, and the other records of its slices as a gap: nothing to do."""

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit to Kafka how far we are, for lag monitors. No worker starts from there, so a failure does no harm."""
        news = {tp: offset for tp, offset in self.delivery.done.items() if self._committed.get(tp) != offset}
        if not news:
            return False
        try:
            await self._thread.call_thread(
                self._thread._ensure_consumer().commit, {driver.ensure_aiokafka_TP(tp): n for tp, n in news.items()}
            )
        except KafkaError as error:
            log.info("lag not reported to Kafka", reason=repr(error))
            return False
        self._committed |= news
        return True


class Transport(driver.Transport):
    """Faust's transport with the consumer above."""

    Consumer = Consumer

    def __init__(self, app: faust.App, settings: KafkaSettings, positions: Positions, broken: Callable[[], None]) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.kafka = settings
        self.positions = positions
        self.broken = broken


def _carrier(load: Any, generation: int) -> ConsumerMessage:
    """The message that carries a load through Faust; its offset is the last one of the first slice."""
    tp, last = load[0][0], load[0][1].records[-1]
    return ConsumerMessage(
        tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type, [], None, load, None, 0, 0, tp,
        generation_id=generation,
    )  # fmt: skip


class _Boot(BootStrategy):
    enable_kafka_producer = False
    enable_web = False


class _App(faust.App):
    BootStrategy = _Boot

    def _create_directories(self) -> None:
        """We use no tables of Faust, so nothing is stored on disk."""


def batched_app(
    group: str, settings: KafkaSettings, topics: Sequence[str], positions: Positions, handle: Handler, broken: Callable[[], None]
) -> faust.App:
    """A Faust app whose one agent hands slices of all the topics to `handle`. `group` is the consumer group; `broken`: see `Delivery`.

    Start it with `await app.start()` inside a running loop, once Kafka answers and the topics exist.
    """
    app = _App(
        group,
        broker=f"kafka://{settings.bootstrap_servers.split(',')[0]}",
        loop=asyncio.get_running_loop(),
        stream_wait_empty=False,    # a handler that retries would hold up the whole group's rebalance
        stream_buffer_maxsize=2,    # messages, each of which is a load of slices
        stream_recovery_delay=0.0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )  # fmt: skip
    app.transport = Transport(app, settings, positions, broken)

    @app.agent(app.topic(*topics, key_serializer="raw", value_serializer="raw"), concurrency=1)
    async def deliver(stream: Any) -> None:
        consumer = app.consumer
        assert isinstance(consumer, Consumer)
        async for event in stream.noack().events():
            await asyncio.gather(*(_handled(consumer, handle, tp, piece) for tp, piece in event.value))

    return app


async def _handled(consumer: Consumer, handle: Handler, tp: TP, piece: Slice) -> None:
    try:
        await handle(tp, piece)
    except Exception as error:
        log.exception("a slice could not be handled", exc_info=error)
        exits.end("failed")
        os._exit(EXIT_SOFTWARE)  # Faust would go on with the next slice
    consumer.delivery.handled(tp, piece)
