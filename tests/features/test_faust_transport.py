"""Faust with batched delivery on a real broker: what a handler gets, and what happens when it, or the store, says no."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from tidemill.errors import StoreUnavailable
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import committed, ensure_topics
from tidemill.kafka.waves import Record, send_wave
from tidemill.runtime.settings import KafkaSettings
from tidemill_features.delivery import SLICE_RECORDS, Chain, Held, Slice, _slices, _take_turns, loads
from tidemill_features.faust_transport import Consumer, batched_app

PARTITIONS = 2


def records(*offsets: int) -> list[Any]:
    """Records of which only the offsets matter."""
    return [SimpleNamespace(topic="t", partition=0, offset=offset) for offset in offsets]


def test_slices_continue_the_chain() -> None:
    """What is fetched comes in pieces of a bounded size, each beginning where the last one ended."""
    chain = Chain(5)
    pieces = list(_slices(chain, records(*range(5, 5 + 2 * SLICE_RECORDS + 1))))
    assert [len(piece.records) for piece in pieces] == [SLICE_RECORDS, SLICE_RECORDS, 1]
    assert [piece.start for piece in pieces] == [5, 5 + SLICE_RECORDS, 5 + 2 * SLICE_RECORDS]
    assert chain.next == 5 + 2 * SLICE_RECORDS + 1


@pytest.mark.parametrize("offsets", [(6, 7), (4, 5), (5, 7), (5, 6, 8), (0,)])
def test_missing_records_break_the_chain(offsets: tuple[int, ...]) -> None:
    """A record left out, repeated or from elsewhere is never delivered, nor what comes with it."""
    chain = Chain(5)
    assert list(_slices(chain, records(*offsets))) == []
    assert chain.broken
    assert list(_slices(chain, records(5, 6))) == []


def test_a_broken_chain_ends_in_the_middle() -> None:
    """Slices that were cut but not yet delivered are dropped once the chain is broken."""
    chain = Chain(0)
    pieces = _slices(chain, records(*range(3 * SLICE_RECORDS)))
    next(pieces)
    chain.broken = True
    assert list(pieces) == []


def test_partitions_take_turns() -> None:
    """A partition with much to deliver does not keep the others waiting."""
    long, short = Chain(0), Chain(0)
    sources = {TP("t", 0): _slices(long, records(*range(3 * SLICE_RECORDS))), TP("t", 1): _slices(short, records(0, 1))}
    assert [tp.partition for tp, _ in _take_turns(sources)] == [0, 1, 0, 0]


@given(st.lists(st.integers(1, 3 * SLICE_RECORDS), max_size=8))
def test_small_slices_travel_together(lengths: list[int]) -> None:
    """Every slice is in one load, in order; a load has no more records than a slice may have, one slice of a partition, and could take no more."""
    chains = [Chain(0) for _ in lengths]
    sent = list(_take_turns({TP("t", i): _slices(chains[i], records(*range(length))) for i, length in enumerate(lengths)}))
    made = list(loads(iter(sent)))
    assert [piece for load in made for piece in load] == sent
    sizes = [sum(len(piece.records) for _, piece in load) for load in made]
    assert all(size <= SLICE_RECORDS for size in sizes)
    assert all(size + len(load[0][1].records) > SLICE_RECORDS for size, load in zip(sizes, made[1:], strict=False))
    assert all(len({tp for tp, _ in load}) == len(load) for load in made)


class Reader:
    """A handler that keeps what it gets, and a store that is a dict of positions."""

    def __init__(self, kafka: str, topic: str) -> None:
        self.settings = KafkaSettings(bootstrap_servers=kafka)
        self.topic = topic
        self.at: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)
        self.got: dict[int, list[bytes]] = defaultdict(list)
        self.asked: list[set[TP]] = []
        self.refuse: set[int] = set()
        self.away = self.broken = 0
        self.on_slice: Callable[[TP, Slice], Awaitable[bool]] | None = None

    async def positions(self, partitions: Collection[TP], held: Held) -> dict[TP, int]:
        """The dict's positions, which the log must hold."""
        self.asked.append(set(partitions))
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        holds = await held(partitions)
        assert all(self.at[tp.partition] in range(holds[tp].start, holds[tp].stop + 1) for tp in partitions)
        return {tp: self.at[tp.partition] for tp in partitions if tp.partition not in self.refuse}

    async def handle(self, tp: TP, piece: Slice) -> None:
        """Keep it, or do what the test wants."""
        if piece.chain.broken or (self.on_slice and not await self.on_slice(tp, piece)):
            return
        assert piece.start == self.at[tp.partition]
        self.got[tp.partition] += [record.value or b"" for record in piece.records]
        self.at[tp.partition] = piece.start + len(piece.records)

    def give_up(self) -> None:
        """All chains are broken."""
        self.broken += 1

    async def write(self, count: int, first: int = 0) -> None:
        """Append numbered records to every partition."""
        await ensure_topics(self.settings, {self.topic: TopicSpec(PARTITIONS, {"cleanup.policy": "delete"})})
        writer = producer(self.settings)
        await writer.start()
        numbered: list[Record] = [(None, b"%d" % i, []) for i in range(first, first + count)]
        await send_wave(writer, {(self.topic, partition): numbered for partition in range(PARTITIONS)})
        await close_producer(writer)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Consumer]:
        """The app, while it runs."""
        app = batched_app(self.topic, self.settings, [self.topic], self.positions, self.handle, self.give_up)
        await app.start()
        consumer = app.consumer
        assert isinstance(consumer, Consumer)
        yield consumer
        await app.stop()

    async def wait_for(self, count: int) -> None:
        """Return once every partition has delivered so many records; nothing missing, doubled or out of order."""
        async with asyncio.timeout(180):
            while any(len(self.got[partition]) < count for partition in range(PARTITIONS)):
                await asyncio.sleep(0.02)
        assert all(self.got[partition] == [b"%d" % i for i in range(count)] for partition in range(PARTITIONS))


@pytest.fixture
async def reader(kafka: str, topic_prefix: str) -> Reader:
    """Return a reader of a topic with 5,000 records in each of its partitions."""
    reader = Reader(kafka, topic_prefix)
    await reader.write(5_000)
    return reader


@pytest.mark.integration
async def test_everything_in_order(reader: Reader) -> None:
    """All records arrive in order, in slices, first those that wait and then those that come."""
    async with reader.running() as consumer:
        await reader.wait_for(5_000)
        assert {tp.partition for tp in consumer.delivery.placed} == {0, 1}
        await reader.write(10, first=5_000)
        await reader.wait_for(5_010)
    assert len(reader.asked) == 1


@pytest.mark.integration
async def test_from_where_the_store_says(reader: Reader) -> None:
    """Reading begins at the store's positions, whatever was committed; what was handled is committed for lag monitors."""
    async with reader.running() as consumer:
        await reader.wait_for(5_000)
        await consumer.commit()
    assert {tp.partition: offset for tp, offset in (await committed(reader.settings, reader.topic)).items()} == {0: 5_000, 1: 5_000}
    reader.at, reader.got = {0: 0, 1: 0}, defaultdict(list)
    async with reader.running():
        await reader.wait_for(5_000)


@pytest.mark.integration
async def test_a_handler_that_goes_back(reader: Reader) -> None:
    """A chain broken by the handler begins anew at the store's position, for this partition alone."""
    breaks = 3

    async def refuse(tp: TP, piece: Slice) -> bool:
        nonlocal breaks
        if tp.partition == 1 and breaks and piece.start:
            breaks -= 1
            piece.chain.broken = True
            return False
        return True

    reader.on_slice = refuse
    async with reader.running():
        await reader.wait_for(5_000)
    assert [{tp.partition for tp in asked} for asked in reader.asked] == [{0, 1}, {1}, {1}, {1}]


@pytest.mark.integration
async def test_a_lost_slice(reader: Reader) -> None:
    """A slice that never reaches the handler shows in the next one's start."""
    lost: list[int] = []

    async def lose_first(tp: TP, piece: Slice) -> bool:
        if tp.partition == 0 and not lost:
            lost.append(piece.start)
            return False
        if piece.start != reader.at[tp.partition]:
            piece.chain.broken = True
            return False
        return True

    reader.on_slice = lose_first
    async with reader.running():
        await reader.wait_for(5_000)
    assert lost == [0]


@pytest.mark.integration
async def test_a_store_that_is_away(reader: Reader) -> None:
    """While the store cannot say where to begin nothing is delivered, and it is asked again."""
    reader.away = 2
    async with reader.running():
        await reader.wait_for(5_000)
    assert len(reader.asked) == 3


@pytest.mark.integration
async def test_a_partition_left_out(reader: Reader) -> None:
    """A partition without a position waits and is asked for again, while the others are delivered."""
    reader.refuse = {1}
    async with reader.running() as consumer:
        async with asyncio.timeout(180):
            while len(reader.got[0]) < 5_000 or len(reader.asked) < 3:
                await asyncio.sleep(0.02)
        assert {tp.partition for tp in consumer.delivery.placed} == {0}
        assert not reader.got[1]
        assert reader.asked[1:] == [{TP(reader.topic, 1)}] * len(reader.asked[1:])
        reader.refuse = set()
        await reader.wait_for(5_000)


@pytest.mark.integration
async def test_a_rebalance(reader: Reader) -> None:
    """A second member takes a partition over where the store says, and gives it back; a zombie's slice changes nothing."""
    async with reader.running() as first:
        await reader.wait_for(5_000)
        broken = reader.broken
        async with reader.running() as second:
            async with asyncio.timeout(180):
                while not (len(first.delivery.placed) == len(second.delivery.placed) == 1):
                    await asyncio.sleep(0.02)
            assert reader.broken > broken  # whoever holds something for partitions is told
            await reader.write(3_000, first=5_000)
            await reader.wait_for(8_000)
        await reader.write(10, first=8_000)
        await reader.wait_for(8_010)
