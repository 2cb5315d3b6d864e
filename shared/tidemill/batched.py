"""Faust with batched delivery: an agent gets slices of consecutive records, and a store, not Kafka, says where each partition goes on.

Stock Faust spends four tasks on every message. Here its aiokafka transport hands over one carrier message per slice of a partition; the
rest of Faust (group membership, flow control, streams, agents) is used as it is. What follows from faust-streaming 0.15 and aiokafka 0.14:

- `Chain` is our own book of what was delivered. Faust drops slices during a rebalance, and aiokafka may skip an oversized batch or reset a
  position; whatever is lost, the next slice does not fit, the chain is broken, and the partition is placed anew from the store.
- Placing happens inside `getmany`, never in `perform_seek`: when that takes longer than `broker_request_timeout` Faust's recovery task ends
  without a word and nothing is ever fetched again. So a store that is away only means that nothing is delivered meanwhile.
- Faust acknowledges a message also when its agent raised, counts what it skips as done, and lets a failed commit crash the worker.
  So its acknowledgements are off, Kafka's committed offset is written for lag monitors only, and an exception in the handler ends the
  process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage, Message

from tidemill import kafka, metrics
from tidemill.errors import StoreError, Unavailable
from tidemill.logs import get_logger
from tidemill.settings import KafkaSettings

log = get_logger(__name__)

SLICE_RECORDS = 2_000  # a fifth faster than 1,000; more would block readers of the store for longer
PAUSE_SECONDS = 0.5
ASK_AGAIN_SECONDS = 1.0
SESSION_MS = 6_000  # the least a broker accepts by default: how soon another worker takes over from one that was killed
EXIT_SOFTWARE = 70


class Chain:
    """An unbroken run of one partition's records. `next` is the offset it goes on with; once `broken` it delivers nothing more."""

    __slots__ = ("broken", "next")

    def __init__(self, start: int) -> None:
        self.next = start
        self.broken = False


class Slice(NamedTuple):
    """Consecutive records of one partition from offset `start` on, none missing; at least one."""

    chain: Chain
    start: int
    records: Sequence[Any]


Held = Callable[[Collection[TP]], Awaitable[Mapping[TP, range]]]
"""The offsets that each partition's log holds now."""

Positions = Callable[[Collection[TP], Held], Awaitable[Mapping[TP, int]]]
"""Where partitions go on: the next offset wanted. One left out is asked for again soon. What the log holds is to be asked after the
store, since both grow."""

Handler = Callable[[TP, Slice], Awaitable[None]]
"""Takes one slice after the other, of all partitions. To go back, it sets `slice.chain.broken`. It must not raise."""


class _Thread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with the consumer that every service of ours has."""

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        assert isinstance(transport, Transport)
        return kafka.consumer(transport.kafka, group=self.app.conf.id, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=SESSION_MS // 4)


class Consumer(driver.Consumer):
    """Delivers slices, from where the store says."""

    transport: Transport

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._chains: dict[TP, Chain] = {}
        self._left_out: dict[TP, float] = {}  # until when (monotonic) not to ask for its position again
        self._done: dict[TP, int] = {}
        self._committed: dict[TP, int] = {}

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    @property
    def placed(self) -> set[TP]:
        """The partitions that are being delivered."""
        return {tp for tp, chain in self._chains.items() if not chain.broken}

    def break_chain(self, tp: TP) -> None:
        """Place a partition anew."""
        self._chains[tp].broken = True

    def break_chains(self) -> None:
        """Place every partition anew."""
        for tp in self._chains:
            self.break_chain(tp)
        self._chains.clear()
        self._left_out.clear()
        self._done.clear()

    async def perform_seek(self) -> None:
        """After a rebalance (Faust's moment to seek): `getmany` will place what is assigned."""
        self.break_chains()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """A slice in work may finish, which its store judges, but is not retried any longer."""
        self.break_chains()
        await super().on_partitions_revoked(revoked)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's signature
        """Yield what one fetch brought, cut into slices, partitions taking turns."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
            return
        try:
            await self._place()
            chains = {tp: chain for tp, chain in self._chains.items() if not chain.broken}
            if not chains:
                await self.sleep(PAUSE_SECONDS)
                return
            fetched = await self._getmany(set(chains), timeout)
        except (KafkaError, TimeoutError, Unavailable, StoreError) as error:
            log.warning("nothing can be delivered, trying again", reason=str(error) or repr(error))
            self.break_chains()
            await self.sleep(PAUSE_SECONDS)
            return
        generation = self.app.consumer_generation_id
        for tp, piece in _take_turns({TP(*tp): _slices(chains[tp], records) for tp, records in fetched.items() if records}):
            if not self.flow_active or self.should_stop or generation != self.app.consumer_generation_id:
                return
            yield tp, _carrier(tp, piece, generation)

    async def _place(self) -> None:
        """Start a chain for every assigned partition without one."""
        generation, now = self.app.consumer_generation_id, monotonic()
        missing = {tp for tp in self.assignment() - self.placed if self._left_out.get(tp, now) <= now}
        if not missing:
            return
        positions = await self.transport.positions(missing, self._held)
        if positions:
            await self.seek_wait(positions)
        if generation == self.app.consumer_generation_id and self.flow_active:
            self._chains |= {tp: Chain(start) for tp, start in positions.items()}
            self._left_out |= dict.fromkeys(missing - positions.keys(), now + ASK_AGAIN_SECONDS)

    async def _held(self, partitions: Collection[TP]) -> dict[TP, range]:
        begins, ends = await self.earliest_offsets(*partitions), await self.highwaters(*partitions)
        return {tp: range(begins[tp], ends[tp]) for tp in partitions}

    def on_buffer_full(self, tp: TP) -> None:
        """A full queue holds the fetcher back by itself; Faust would also stop fetching the partition, for a second."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See `on_buffer_full`."""

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """To Faust a carrier stands for one record, and what it carries is a gap."""

    def handled(self, tp: TP, piece: Slice) -> None:
        """Note how far the handler is."""
        if not piece.chain.broken:
            self._done[tp] = piece.start + len(piece.records)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Tell Kafka how far we are, for those who watch the lag. Nobody goes on from there, so a failure does no harm."""
        news = {tp: offset for tp, offset in self._done.items() if self._committed.get(tp) != offset}
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

    def __init__(self, app: faust.App, settings: KafkaSettings, positions: Positions) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.kafka = settings
        self.positions = positions


def _slices(chain: Chain, records: Sequence[Any]) -> Iterator[Slice]:
    """Cut fetched records into slices that continue the chain; break it when they do not."""
    for i in range(0, len(records), SLICE_RECORDS):
        if chain.broken:
            return
        part = records[i : i + SLICE_RECORDS]
        start, last = part[0].offset, part[-1].offset
        if start != chain.next or last - start != len(part) - 1:
            log.error(
                "records are missing from what Kafka delivered",
                topic=part[0].topic,
                partition=part[0].partition,
                wanted=chain.next,
                got=start,
            )
            metrics.DELIVERY_GAPS.labels(part[0].topic).inc()
            chain.broken = True
            return
        chain.next = last + 1
        yield Slice(chain, start, part)


def _take_turns(sources: dict[TP, Iterator[Slice]]) -> Iterator[tuple[TP, Slice]]:
    while sources:
        for tp, source in list(sources.items()):
            piece = next(source, None)
            if piece is None:
                del sources[tp]
            else:
                yield tp, piece


def _carrier(tp: TP, piece: Any, generation: int) -> ConsumerMessage:
    """The message that takes a slice through Faust; its offset is the slice's last."""
    last = piece.records[-1]
    return ConsumerMessage(
        tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type, [], None, piece, None, 0, 0, tp,
        generation_id=generation,
    )  # fmt: skip


class _Boot(BootStrategy):
    enable_kafka_producer = False
    enable_web = False


class _App(faust.App):
    BootStrategy = _Boot

    def _create_directories(self) -> None:
        """There are no tables, so nothing is kept on disk."""


def batched_app(group: str, settings: KafkaSettings, topics: Sequence[str], positions: Positions, handle: Handler) -> faust.App:
    """A Faust app whose one agent hands slices of all the topics to `handle`. `group` is the consumer group.

    Start it with `await app.start()` inside a running loop, once Kafka answers and the topics exist.
    """
    app = _App(
        group,
        broker=f"kafka://{settings.bootstrap_servers.split(',')[0]}",
        loop=asyncio.get_running_loop(),
        stream_wait_empty=False,    # a handler that retries would hold up the whole group's rebalance
        stream_buffer_maxsize=2,    # messages, each of which is a slice
        stream_recovery_delay=0.0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )  # fmt: skip
    app.transport = Transport(app, settings, positions)

    @app.agent(app.topic(*topics, key_serializer="raw", value_serializer="raw"), concurrency=1)
    async def deliver(stream: Any) -> None:
        consumer = app.consumer
        assert isinstance(consumer, Consumer)
        async for event in stream.noack().events():
            tp, piece = event.message.tp, event.value
            try:
                await handle(tp, piece)
            except Exception as error:
                log.exception("a slice could not be handled", exc_info=error)
                os._exit(EXIT_SOFTWARE)  # Faust would go on with the next slice
            consumer.handled(tp, piece)

    return app
