"""Claims on a real Valkey: nobody else writes, a step follows all those before it, and what is left behind expires."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
from msgspec.structs import replace

from tidemill.kernel.fences import Fence
from tidemill.names import log_name
from tidemill.online import claim as module
from tidemill.online.claim import Claim, ClaimLost
from tidemill.online.keys import fence_key, state_key
from tidemill.online.writer import OnlineWriter
from tidemill.redis.link import RedisLink

pytestmark = pytest.mark.integration
LOG = log_name("v", 2)
EMPTY = Fence(0, "d", 2)
KEY = fence_key("p", LOG, 1)


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    """Return a link to an empty store."""
    async with RedisLink(redis_url) as made:
        yield made


@pytest.fixture
def store(redis_url: str) -> redis.Redis:
    """Return another client of the same store."""
    return redis.Redis.from_url(redis_url)


def claim(link: RedisLink) -> Claim:
    """A claim on one partition."""
    return Claim(link, "p", LOG, 1, EMPTY)


def stored(store: redis.Redis) -> Fence:
    """The fence that lies there."""
    return Fence.decode(store.get(KEY))  # type: ignore[arg-type]


async def test_from_claim_to_fence(link: RedisLink, store: redis.Redis) -> None:
    """Old entities go, new ones come, the partition reads as being rebuilt all the while, and then the fence stands without an end."""
    writer, final = OnlineWriter(link, "p"), replace(EMPTY, next=7, until=9)
    assert await writer.apply(LOG, 1, None, replace(EMPTY, next=3).encode(), {b"old": b"1", b"both": b"1"})
    taken = claim(link)
    assert await taken.take()
    assert await taken.take()  # its reply was lost
    assert (stored(store).next, stored(store).until) == (0, 1)
    await taken.empty()
    await taken.write({b"both": b"2"})
    await taken.write({b"new": b"3"})
    await taken.renew()
    assert await taken.load([b"old", b"both", b"new"]) == {b"both": b"2", b"new": b"3"}
    assert 0 < int(store.pttl(KEY)) <= module.LEASE_MS
    await taken.finish(final)
    stands = stored(store)
    assert (replace(stands, built=""), store.pttl(KEY)) == (final, -1)
    assert await writer.load(LOG, 1, [b"old", b"both", b"new"]) == (stands.encode(), {b"both": b"2", b"new": b"3"})


async def test_a_worker_from_before_is_refused(link: RedisLink, store: redis.Redis) -> None:
    """What a worker has read before a rebuild it must not write on, although the rebuilt partition stands at the very same offset."""
    writer, before = OnlineWriter(link, "p"), replace(EMPTY, next=3)
    assert await writer.apply(LOG, 1, None, before.encode(), {b"a": b"altered"})
    for _ in range(2):  # nor what it has read before the second of two
        known = stored(store)
        taken = claim(link)
        assert await taken.take()
        await taken.write({b"a": b"right"})
        await taken.finish(before)
        assert replace(stored(store), built="") == before
        assert not await writer.apply(LOG, 1, known.encode(), replace(known, next=4).encode(), {b"a": b"altered more"})


async def test_nobody_else_writes(link: RedisLink) -> None:
    """While it is claimed neither another builder nor a worker gets in: from the old fence, from none, or by beginning anew."""
    writer, before = OnlineWriter(link, "p"), replace(EMPTY, next=3).encode()
    assert await writer.apply(LOG, 1, None, before, {b"a": b"1"})
    taken = claim(link)
    assert await taken.take()
    assert not await claim(link).take()
    for expected in (before, None):
        assert not await writer.apply(LOG, 1, expected, replace(EMPTY, next=4).encode(), {b"a": b"9"})
    await writer.begin(LOG, 1, EMPTY.encode())
    assert await taken.load([b"a"]) == {b"a": b"1"}


async def test_a_store_that_falls_back(link: RedisLink, store: redis.Redis) -> None:
    """When the store forgets the last steps the next one is refused, since it would follow something else than what was written."""
    taken = claim(link)
    assert await taken.take()
    await taken.write({b"a": b"1"})
    before = store.get(KEY)
    await taken.write({b"b": b"2"})
    store.set(KEY, before, px=5_000)  # type: ignore[arg-type]
    store.delete(state_key("p", LOG, 1, b"b"))
    for step in (taken.write({b"c": b"3"}), taken.renew(), taken.load([b"a"]), taken.finish(replace(EMPTY, next=1))):
        with pytest.raises(ClaimLost, match="partition 1: the claim is gone"):
            await step


async def test_what_is_left_behind(link: RedisLink, store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was killed expires, and then another may begin; one that was given up leaves no fence."""
    monkeypatch.setattr(module, "LEASE_MS", 200)
    killed, other = claim(link), claim(link)
    assert await killed.take()
    monkeypatch.setattr(module, "LEASE_MS", 60_000)
    async with asyncio.timeout(180):
        while not await other.take():
            await asyncio.sleep(0.05)
    with pytest.raises(ClaimLost):
        await killed.write({b"a": b"1"})
    await killed.release()
    assert stored(store).builder
    await other.release()
    assert store.get(KEY) is None
