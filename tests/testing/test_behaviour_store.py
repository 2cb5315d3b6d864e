"""The online store's behaviour, the same over the twin and over a real Valkey: the fence protocol as writers, readers and builders use it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import msgspec
import pytest
from tests.demo_state import demo

from tidemill.errors import CorruptState, StoreUnavailable
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import empty_fence
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import Patch
from tidemill.kernel.view import ViewKernel
from tidemill.names import log_name
from tidemill.online.claim import Claim, ClaimLost
from tidemill.online.keys import fence_key, state_key
from tidemill.online.reader import OnlineReader, stamp_of
from tidemill.online.writer import OnlineWriter
from tidemill.redis.link import RedisLink
from tidemill.redis.protocol import RedisClient
from tidemill.testing.store import MemoryRedis

REAL = pytest.param("real", marks=pytest.mark.integration)
LOG = log_name("v", 2)
FENCES = [Fence(number, "d", 2).encode() for number in range(3)]
ENTITIES = [b"a", b"b", b"c"]


@pytest.fixture(params=["twin", REAL])
async def link(request: pytest.FixtureRequest) -> AsyncIterator[RedisClient]:
    """Return a client of an empty store."""
    if request.param == "twin":
        yield MemoryRedis()
    else:
        async with RedisLink(request.getfixturevalue("redis_url")) as real:
            yield real


@pytest.fixture
def writer(link: RedisClient) -> OnlineWriter:
    """Return a writer on an empty store."""
    return OnlineWriter(link, "p")


async def test_from_the_right_fence(writer: OnlineWriter) -> None:
    """A batch that expects what stands there is written whole, and the fence moves with it."""
    assert await writer.load(LOG, 0, [b"a"]) == (None, {})
    assert await writer.apply(LOG, 0, None, b"f1", {b"a": b"1", b"b": b"2"})
    assert await writer.apply(LOG, 0, b"f1", b"f2", {b"a": b"3"})
    assert await writer.load(LOG, 0, ENTITIES) == (b"f2", {b"a": b"3", b"b": b"2"})
    assert await writer.fences([(LOG, 0), (LOG, 1)]) == [b"f2", None]


@pytest.mark.parametrize("expected", [None, b"f0", b"f", b"f11"])
async def test_from_a_wrong_fence(writer: OnlineWriter, expected: bytes | None) -> None:
    """A batch that expects anything else changes nothing."""
    assert await writer.apply(LOG, 0, None, b"f1", {b"a": b"1"})
    assert not await writer.apply(LOG, 0, expected, b"f2", {b"a": b"9", b"b": b"9"})
    assert await writer.load(LOG, 0, ENTITIES) == (b"f1", {b"a": b"1"})


async def test_the_same_batch_twice(writer: OnlineWriter) -> None:
    """A batch whose answer was lost counts as applied when it comes again, until the fence has moved on."""
    for _ in range(2):
        assert await writer.apply(LOG, 0, None, b"f1", {b"a": b"1"})
    assert await writer.apply(LOG, 0, b"f1", b"f2", {b"a": b"2"})
    assert not await writer.apply(LOG, 0, None, b"f1", {b"a": b"1"})
    assert await writer.load(LOG, 0, [b"a"]) == (b"f2", {b"a": b"2"})


async def test_changed_in_place(writer: OnlineWriter) -> None:
    """Pieces go to their places in several values, beside whole values of others."""
    assert await writer.apply(LOG, 0, None, b"f1", {b"a": b"0123456789", b"b": b"abc"})
    changes: dict[bytes, bytes | Patch] = {b"a": Patch(10, [(0, b"AB"), (8, b"\x00\xff")]), b"c": b"new", b"b": Patch(3, [(1, b"-")])}
    assert await writer.apply(LOG, 0, b"f1", b"f2", changes)
    assert await writer.load(LOG, 0, ENTITIES) == (b"f2", {b"a": b"AB234567\x00\xff", b"b": b"a-c", b"c": b"new"})


@pytest.mark.parametrize("length", [2, 4, 9])
async def test_not_as_long_as_it_was_left(writer: OnlineWriter, length: int) -> None:
    """A value of another length, or one that is gone, is not changed in place: the whole batch is refused, and the entity named."""
    assert await writer.apply(LOG, 0, None, b"f1", {b"a": b"123", b"b": b"x"})
    for entity in (b"a", b"c"):
        with pytest.raises(CorruptState, match=f"entity {entity!r}.*by hand"):
            await writer.apply(LOG, 0, b"f1", b"f2", {b"b": b"y", entity: Patch(length, [(0, b"A")])})
    assert await writer.load(LOG, 0, ENTITIES) == (b"f1", {b"a": b"123", b"b": b"x"})


async def test_a_beginning(writer: OnlineWriter, link: RedisClient) -> None:
    """A partition without a fence loses its old entities and gets its first fence; other partitions, and one with a fence, keep theirs."""
    for partition in (0, 1):
        assert await writer.apply(LOG, partition, None, FENCES[1], {b"%d" % i: b"x" for i in range(50)})
    await writer.begin(LOG, 0, FENCES[0])
    assert await writer.fences([(LOG, 0)]) == [FENCES[1]]
    await link.call(b"DEL", fence_key("p", LOG, 0))
    await writer.begin(LOG, 0, FENCES[0])
    assert await writer.fences([(LOG, 0), (LOG, 1)]) == [FENCES[0], FENCES[1]]
    assert [entities async for entities in writer.entities(LOG, 0)] == []
    assert len({entity async for entities in writer.entities(LOG, 1) for entity in entities}) == 50


async def test_a_claim(writer: OnlineWriter, link: RedisClient) -> None:
    """One builder at a time; what it wrote is there with its fence, or, once it gave up, without one."""
    assert await writer.apply(LOG, 0, None, FENCES[2], {b"a": b"old", b"b": b"old"})
    first, second = (Claim(link, "p", LOG, 0, Fence(0, "d", 2)) for _ in range(2))
    assert await first.take()
    assert not await second.take()
    assert not await writer.apply(LOG, 0, FENCES[2], FENCES[1], {b"a": b"by a worker"})
    await first.empty()
    await first.write({b"a": b"new"})
    assert await first.load(ENTITIES) == {b"a": b"new"}
    await first.finish(Fence(2, "d", 2))
    (fence,) = await writer.fences([(LOG, 0)])
    assert isinstance(fence, bytes)
    assert (Fence.decode(fence).next, bool(Fence.decode(fence).built)) == (2, True)
    assert await second.take()
    with pytest.raises(ClaimLost):
        await first.renew()
    await second.release()
    assert await writer.load(LOG, 0, ENTITIES) == (None, {b"a": b"new"})


async def test_a_claim_expires(writer: OnlineWriter, link: RedisClient) -> None:
    """A step of a claim lasts for its lease; then the partition has no fence, and what was written is left."""
    assert await writer.step(LOG, 0, b"", b"claim", 600_000, [b"a"], [b"1"])
    assert not await writer.step(LOG, 0, b"another", b"claim 2", 40, [b"a"], [b"2"])
    assert await writer.load(LOG, 0, [b"a"]) == (b"claim", {b"a": b"1"})
    assert await writer.step(LOG, 0, b"claim", b"claim", 40, [b"a"], [b"1"])
    await asyncio.sleep(0.06)
    assert await writer.load(LOG, 0, [b"a"]) == (None, {b"a": b"1"})
    assert await writer.step(LOG, 0, b"", b"claim 3", 10_000, [b"a"])
    assert await writer.load(LOG, 0, [b"a"]) == (b"claim 3", {})


async def test_read_with_the_fence_that_vouches(link: RedisClient) -> None:
    """Many entities of many partitions are read with their fences; without one, and while it is built, a partition is being rebuilt."""
    view = demo().views["zones"]
    kernel = ViewKernel(view)
    writer, reader = OnlineWriter(link, "p"), OnlineReader(link, "p", {view.name: kernel})
    entities = [b"%d" % i for i in range(20)]
    fence = msgspec.structs.replace(empty_fence(kernel), next=7)
    for entity in entities:
        partition = partition_of(entity, view.partitions)
        before, _ = await writer.load(view.log, partition, [])
        if partition:
            assert await writer.apply(view.log, partition, before, fence.encode(), {entity: b"v" + entity})
    stored = await reader.read([(view.name, entity) for entity in [*entities, b"unknown"]])
    for entity, item in zip(entities, stored, strict=False):
        begun = partition_of(entity, view.partitions) != 0
        assert (item.value, item.fence.next, item.rebuilding) == ((b"v" + entity, 7, False) if begun else (None, 0, True))
    assert len(stamp_of(stored)) == view.partitions
    claim = Claim(link, "p", view.log, 1, empty_fence(kernel))
    assert await claim.take()
    assert {item.rebuilding for item in await reader.read([(view.name, entity) for entity in entities])} == (
        {True} if view.partitions == 2 else {True, False}
    )
    await writer.apply(view.log, 0, None, Fence(1, "another", view.partitions).encode(), {})
    with pytest.raises(StoreUnavailable, match="definition another"):
        await reader.read([(view.name, entity) for entity in entities])


async def test_single_commands(link: RedisClient) -> None:
    """SET with its options, GET and DEL, as the first answers of inference use them."""
    assert await link.call(b"SET", b"k", b"1", b"NX", b"GET", b"PX", 60_000) is None
    assert await link.call(b"SET", b"k", b"2", b"NX", b"GET", b"PX", 60_000) == b"1"
    assert await link.call(b"SET", b"k", b"3") in (b"OK", "OK")
    assert await link.call(b"GET", b"k") == b"3"
    assert [await link.call(b"DEL", b"k"), await link.call(b"DEL", b"k")] == [1, 0]
    assert await link.mget([b"k", b"x"]) == [None, None]
    assert await OnlineWriter(link, "p").eviction_policy() == "noeviction"


def _value(draw: random.Random) -> bytes | Patch:
    """A whole value, or a change of one that has a certain length."""
    length = draw.randint(3, 5)
    if draw.random() < 0.5:
        return draw.randbytes(length)
    return Patch(length, [(draw.randrange(2), draw.randbytes(1)), (2, draw.randbytes(1))])


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(5))
async def test_any_calls_are_answered_alike(redis_url: str, seed: int) -> None:
    """Random writes from right and wrong fences, whole and in place, beginnings and deletions: a Valkey and its twin answer and hold the same."""
    draw, answers = random.Random(seed), set[object]()
    async with RedisLink(redis_url) as real:
        links: list[RedisClient] = [real, MemoryRedis()]
        writers = [OnlineWriter(link, "p") for link in links]
        for _ in range(300):
            partition = draw.randrange(2)
            values = {entity: _value(draw) for entity in draw.sample(ENTITIES, draw.randint(1, 3))}
            call = (LOG, partition, draw.choice([None, *FENCES]), draw.choice(FENCES), values)
            begins, forgets = draw.random() < 0.1, draw.random() < 0.1
            given, held = list[object](), list[object]()
            for link, writer in zip(links, writers, strict=True):
                try:
                    given.append(await writer.apply(*call))
                except CorruptState:
                    given.append("altered")
                if begins:
                    await writer.begin(LOG, partition, FENCES[0])
                if forgets:
                    await link.call(b"DEL", fence_key("p", LOG, partition))
                keys = [fence_key("p", LOG, partition), *(state_key("p", LOG, partition, entity) for entity in ENTITIES)]
                held.append((await link.mget(keys), await writer.load(LOG, partition, ENTITIES)))
            assert given[0] == given[1]
            assert held[0] == held[1]
            answers.add(given[0])
    assert answers == {True, False, "altered"}
