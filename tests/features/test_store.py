"""The online store's two scripts on a real Valkey: all or nothing, only from the expected fence, harmless when repeated."""

from collections.abc import AsyncIterator

import pytest
import redis

from tidemill.errors import StoreError
from tidemill.online_store import OnlineWriter
from tidemill.redis_link import RedisLink
from tidemill.topics import fence_key, state_key

pytestmark = pytest.mark.integration


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
    assert await writer.load("v", 0, [b"a", b"b"]) == (None, {})
    assert await writer.apply("v", 0, None, b"f1", {b"a": b"1", b"b": b"2"})
    assert await writer.apply("v", 0, b"f1", b"f2", {b"a": b"3"})
    assert await writer.load("v", 0, [b"a", b"b", b"c"]) == (b"f2", {b"a": b"3", b"b": b"2"})
    assert await writer.fences([("v", 0), ("v", 1), ("w", 0)]) == [b"f2", None, None]


@pytest.mark.parametrize("expected", [None, b"f0", b"f", b"f11"])
async def test_another_fence_changes_nothing(writer: OnlineWriter, expected: bytes | None) -> None:
    """A batch that expects another fence than the stored one is refused whole."""
    assert await writer.apply("v", 0, None, b"f1", {b"a": b"1"})
    assert not await writer.apply("v", 0, expected, b"f2", {b"a": b"9", b"b": b"9"})
    assert await writer.load("v", 0, [b"a", b"b"]) == (b"f1", {b"a": b"1"})


async def test_repeated_after_a_lost_reply(writer: OnlineWriter) -> None:
    """The same batch again finds its own fence and counts as applied, also when a later batch is not in between."""
    for _ in range(2):
        assert await writer.apply("v", 0, None, b"f1", {b"a": b"1"})
    assert await writer.apply("v", 0, b"f1", b"f2", {b"a": b"2"})
    assert not await writer.apply("v", 0, None, b"f1", {b"a": b"1"})
    assert await writer.load("v", 0, [b"a"]) == (b"f2", {b"a": b"2"})


async def test_many_values(writer: OnlineWriter) -> None:
    """More values than one MSET of the script takes, with any bytes in keys and values."""
    values = {b"e\x00\xff\r\n%d" % i: bytes([i % 256]) * i for i in range(2_501)}
    assert await writer.apply("v", 0, None, b"f", values)
    assert await writer.load("v", 0, list(values)) == (b"f", values)


async def test_refused_before_the_first_write(writer: OnlineWriter, store: redis.Redis) -> None:
    """A store out of memory refuses the whole script: nothing is half written."""
    assert await writer.apply("v", 0, None, b"f1", {b"a": b"1"})
    store.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(StoreError, match="OOM"):
            await writer.apply("v", 0, b"f1", b"f2", {b"a": b"2", b"b": b"2"})
    finally:
        store.config_set("maxmemory", "0")
    assert await writer.load("v", 0, [b"a", b"b"]) == (b"f1", {b"a": b"1"})


async def test_begun_only_without_a_fence(writer: OnlineWriter, store: redis.Redis) -> None:
    """Old entities go and the first fence comes when a partition has no fence; one that has is left alone, and so are all others."""
    assert await writer.apply("v", 1, None, b"f", {b"%d" % i: b"x" for i in range(3_000)})
    assert await writer.apply("v", 11, None, b"f", {b"a": b"x"})
    await writer.begin("v", 1, b"f0")
    assert store.dbsize() == 3_000 + 1 + 2
    store.delete(fence_key("p", "v", 1))
    await writer.begin("v", 1, b"f0")
    assert sorted(store.keys()) == sorted([fence_key("p", "v", 1), fence_key("p", "v", 11), state_key("p", "v", 11, b"a")])
    assert await writer.fences([("v", 1)]) == [b"f0"]


async def test_eviction_policy(writer: OnlineWriter, store: redis.Redis) -> None:
    """The policy is the server's."""
    assert await writer.eviction_policy() == "noeviction"
    store.config_set("maxmemory-policy", "allkeys-lfu")
    try:
        assert await writer.eviction_policy() == "allkeys-lfu"
    finally:
        store.config_set("maxmemory-policy", "noeviction")
