"""The online store's two scripts on a real Valkey: all or nothing, only from the expected fence, harmless when repeated."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from tidemill.errors import CorruptState, StoreError
from tidemill.kernel.fences import Fence
from tidemill.kernel.packed import Patch
from tidemill.names import LogName, log_name
from tidemill.online.keys import fence_key, state_key
from tidemill.online.writer import CLAIM_MS, OnlineWriter
from tidemill.redis.link import RedisLink

pytestmark = pytest.mark.integration
V, W = log_name("v", 12), log_name("w", 1)


@pytest.fixture
async def writer(redis_url: str) -> AsyncIterator[OnlineWriter]:
    """Return a writer on an empty store."""
    async with RedisLink(redis_url) as link:
        yield OnlineWriter(link, "p")


@pytest.fixture
def store(redis_url: str) -> redis.Redis:
    """Return another client of the same store."""
    return redis.Redis.from_url(redis_url)


async def test_applied_from_nothing_and_on(writer: OnlineWriter) -> None:
    """The first batch expects no fence, the next the one before; both are read back whole."""
    assert await writer.load(V, 0, [b"a", b"b"]) == (None, {})
    assert await writer.apply(V, 0, None, b"f1", {b"a": b"1", b"b": b"2"})
    assert await writer.apply(V, 0, b"f1", b"f2", {b"a": b"3"})
    assert await writer.load(V, 0, [b"a", b"b", b"c"]) == (b"f2", {b"a": b"3", b"b": b"2"})
    assert await writer.fences([(V, 0), (V, 1), (W, 0)]) == [b"f2", None, None]


@pytest.mark.parametrize("expected", [None, b"f0", b"f", b"f11"])
async def test_another_fence_changes_nothing(writer: OnlineWriter, expected: bytes | None) -> None:
    """A batch that expects another fence than the stored one is refused whole."""
    assert await writer.apply(V, 0, None, b"f1", {b"a": b"1"})
    assert not await writer.apply(V, 0, expected, b"f2", {b"a": b"9", b"b": b"9"})
    assert await writer.load(V, 0, [b"a", b"b"]) == (b"f1", {b"a": b"1"})


async def test_repeated_after_a_lost_reply(writer: OnlineWriter) -> None:
    """The same batch again finds its own fence and counts as applied, also when a later batch is not in between."""
    for _ in range(2):
        assert await writer.apply(V, 0, None, b"f1", {b"a": b"1"})
    assert await writer.apply(V, 0, b"f1", b"f2", {b"a": b"2"})
    assert not await writer.apply(V, 0, None, b"f1", {b"a": b"1"})
    assert await writer.load(V, 0, [b"a"]) == (b"f2", {b"a": b"2"})


async def test_many_values(writer: OnlineWriter) -> None:
    """More values than one MSET of the script takes, with any bytes in keys and values."""
    values = {b"e\x00\xff\r\n%d" % i: bytes([i % 256]) * i for i in range(2_501)}
    assert await writer.apply(V, 0, None, b"f", values)
    assert await writer.load(V, 0, list(values)) == (b"f", values)


async def test_changed_in_place(writer: OnlineWriter) -> None:
    """Pieces are written at their places, beside whole values of others; the same again changes nothing."""
    assert await writer.apply(V, 0, None, b"f1", {b"a": b"0123456789", b"b": b"x"})
    for _ in range(2):
        changes: dict[bytes, bytes | Patch] = {b"c": b"new", b"a": Patch(10, [(0, b"AB"), (8, b"\x00\xff")]), b"b": b"y"}
        assert await writer.apply(V, 0, b"f1", b"f2", changes)
        assert await writer.load(V, 0, [b"a", b"b", b"c"]) == (b"f2", {b"a": b"AB234567\x00\xff", b"b": b"y", b"c": b"new"})


@pytest.mark.parametrize("by_hand", [None, b"0123", b"0123456789+"])
async def test_not_as_long_as_it_was_left(writer: OnlineWriter, store: redis.Redis, by_hand: bytes | None) -> None:
    """A value that somebody deleted or altered is not changed in place: nothing is written, and the entity is named."""
    assert await writer.apply(V, 0, None, b"f1", {b"a": b"0123456789", b"b": b"x"})
    store.delete(state_key("p", V, 0, b"a"))
    if by_hand is not None:
        store.set(state_key("p", V, 0, b"a"), by_hand)
    with pytest.raises(CorruptState, match=r"entity b'a'.*by hand"):
        await writer.apply(V, 0, b"f1", b"f2", {b"b": b"y", b"a": Patch(10, [(0, b"AB")])})
    assert (await writer.load(V, 0, [b"b"])) == (b"f1", {b"b": b"x"})


async def test_many_changes_in_place(writer: OnlineWriter) -> None:
    """Thousands of values are changed in place by one script."""
    values = {b"e%d" % i: b"%06d" % i for i in range(3_000)}
    assert await writer.apply(V, 0, None, b"f1", values)
    assert await writer.apply(V, 0, b"f1", b"f2", {entity: Patch(6, [(5, b"+")]) for entity in values})
    assert await writer.load(V, 0, list(values)) == (b"f2", {entity: value[:5] + b"+" for entity, value in values.items()})


async def test_refused_before_the_first_write(writer: OnlineWriter, store: redis.Redis) -> None:
    """A store out of memory refuses the whole script: nothing is half written."""
    assert await writer.apply(V, 0, None, b"f1", {b"a": b"1"})
    store.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(StoreError, match="OOM"):
            await writer.apply(V, 0, b"f1", b"f2", {b"a": b"2", b"b": b"2"})
    finally:
        store.config_set("maxmemory", "0")
    assert await writer.load(V, 0, [b"a", b"b"]) == (b"f1", {b"a": b"1"})


async def test_begun_only_without_a_fence(writer: OnlineWriter, store: redis.Redis) -> None:
    """Old entities go and the first fence comes when a partition has no fence; one that has is left alone, and so are all others."""
    assert await writer.apply(V, 1, None, b"f", {b"%d" % i: b"x" for i in range(3_000)})
    assert await writer.apply(V, 11, None, b"f", {b"a": b"x"})
    fence = Fence(0, "d", 12).encode()
    await writer.begin(V, 1, fence)
    assert store.dbsize() == 3_000 + 1 + 2
    store.delete(fence_key("p", V, 1))
    await writer.begin(V, 1, fence)
    assert sorted(store.keys()) == sorted([fence_key("p", V, 1), fence_key("p", V, 11), state_key("p", V, 11, b"a")])
    assert await writer.fences([(V, 1)]) == [fence]
    assert store.pttl(fence_key("p", V, 1)) == -1


async def test_a_beginning_that_the_store_forgot(writer: OnlineWriter, store: redis.Redis) -> None:
    """When the store falls back while old entities are being deleted, no fence is put beside those that are back."""
    fence, key = Fence(0, "d", 12).encode(), fence_key("p", V, 1)
    assert await writer.apply(V, 1, None, b"f", {b"%d" % i: b"x" for i in range(3_000)})
    store.delete(key)
    deleted, claims = store.dbsize(), list[Any]()
    scan = writer.entities

    async def falling_back(log: LogName, partition: int) -> AsyncIterator[list[bytes]]:
        async for entities in scan(log, partition):
            claims.append((store.get(key), store.pttl(key)))
            if len(claims) == 2:
                store.delete(key)  # as it was at first
            yield entities

    writer.entities = falling_back  # type: ignore[method-assign]
    await writer.begin(V, 1, fence)
    assert store.get(key) is None
    assert 0 < store.dbsize() < deleted
    assert all(Fence.decode(claim).builder and 0 < left_ms <= CLAIM_MS for claim, left_ms in claims[:2])
    writer.entities = scan  # type: ignore[method-assign]
    await writer.begin(V, 1, fence)
    assert store.keys() == [key]


async def test_eviction_policy(writer: OnlineWriter, store: redis.Redis) -> None:
    """The policy is the server's."""
    assert await writer.eviction_policy() == "noeviction"
    store.config_set("maxmemory-policy", "allkeys-lfu")
    try:
        assert await writer.eviction_policy() == "allkeys-lfu"
    finally:
        store.config_set("maxmemory-policy", "noeviction")
