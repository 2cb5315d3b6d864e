"""The cluster's client against a real cluster: commands find their node, however stale the map, and errors say what is wrong."""

import asyncio
import re
from collections.abc import Callable

import pytest
from tests.cluster.nodes import Cluster, Node

from tidemill.errors import SlotUnavailable, StoreError, StoreUnavailable
from tidemill.kernel.fences import Fence
from tidemill.local import valkey
from tidemill.names import log_name
from tidemill.online.keys import fence_key, state_key
from tidemill.online.writer import OnlineWriter
from tidemill.redis.address import RedisAddress
from tidemill.redis.client import redis_client
from tidemill.redis.cluster import RedisCluster, slot_of
from tidemill.redis.link import RedisLink

pytestmark = pytest.mark.integration
LOG = log_name("v", 12)
ECHO = "#!lua\nreturn {KEYS[1], ARGV[1]}"


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something to hold, twenty seconds at most."""
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.005)


def other(cluster: Cluster, node: Node) -> Node:
    """Another primary."""
    return next(each for each in cluster.nodes if each.is_primary() and each is not node)


def redirections(node: Node) -> int:
    """How often a node has sent somebody elsewhere for good."""
    found = re.search(rb"errorstat_MOVED:count=(\d+)", node.ask("INFO", "errorstats"))
    return int(found[1]) if found else 0


def move_slot(cluster: Cluster, slot: int) -> tuple[Node, Node]:
    """Migrate a slot with all its keys; returns source and target."""
    source = cluster.owner(slot)
    target = other(cluster, source)
    with cluster.migrating(slot, target):
        pass
    return source, target


def test_the_url_chooses(nodes: Cluster) -> None:
    """One factory gives the client of one server or of a cluster."""
    assert isinstance(redis_client("redis://cache"), RedisLink)
    assert isinstance(redis_client(nodes.url), RedisCluster)


async def test_values_come_in_the_order_of_their_keys(cluster: Cluster) -> None:
    """Keys of all slots, missing ones and repeated ones, many callers at once."""
    keys = [b"key-%d" % i for i in range(500)]
    async with redis_client(cluster.url) as client:
        await asyncio.gather(*(client.call(b"SET", key, key[::-1]) for key in keys[::2]))
        expected = [key[::-1] if i % 2 == 0 else None for i, key in enumerate(keys)]
        assert await client.mget([*keys, keys[4], *keys]) == [*expected, expected[4], *expected]
        assert await client.mget(iter(keys[:1])) == expected[:1]
        assert await client.mget([]) == []
        assert await asyncio.gather(*(client.call(b"GET", key) for key in keys)) == expected
        assert set(await client.everywhere(b"PING")) == {b"PONG"}
        assert len(await client.everywhere(b"DBSIZE")) == 3
        assert sum(await client.everywhere(b"DBSIZE")) == 250


async def test_scripts_run_where_their_keys_are(cluster: Cluster) -> None:
    """Each node learns a script when it first needs it; an error inside it is told."""
    async with redis_client(cluster.url) as client:
        for key in (b"a", b"b", b"c", b"d", b"a"):
            assert await client.script(ECHO, [key], [b"x"]) == [key, b"x"]
        with pytest.raises(StoreError, match="no such key"):
            await client.script("#!lua\nreturn redis.error_reply('ERR no such key')", [b"a"], [])
        with pytest.raises(StoreError, match="CROSSSLOT"):
            await client.script(ECHO, [b"a", b"b"], [b"x"])


async def test_the_online_store(cluster: Cluster) -> None:
    """Batches, refusals, fences of all partitions at once, old entities and the policy, as on one server."""
    async with redis_client(cluster.url) as client:
        writer = OnlineWriter(client, "p")
        for partition in range(12):
            assert await writer.apply(LOG, partition, None, b"f1", {b"%d" % i: b"x%d" % i for i in range(30)})
            assert not await writer.apply(LOG, partition, b"f0", b"f2", {b"1": b"y"})
            assert await writer.load(LOG, partition, [b"1", b"none"]) == (b"f1", {b"1": b"x1"})
        assert len({cluster.owner(slot_of(fence_key("p", LOG, partition))).port for partition in range(12)}) == 3
        assert await writer.fences([(LOG, partition) for partition in range(14)]) == [b"f1"] * 12 + [None] * 2
        await client.call(b"DEL", fence_key("p", LOG, 1))
        first = Fence(0, "definition", 12).encode()
        await writer.begin(LOG, 1, first)
        await writer.begin(LOG, 2, first)
        assert await writer.fences([(LOG, 1), (LOG, 2), (LOG, 11)]) == [first, b"f1", b"f1"]
        left = {key async for keys in client.scan(b"*") for key in keys} - {fence_key("p", LOG, partition) for partition in range(12)}
        assert left == {state_key("p", LOG, partition, b"%d" % i) for partition in range(12) if partition != 1 for i in range(30)}
        assert await writer.eviction_policy() == "noeviction"
        node = cluster.owner(0)
        node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            assert await writer.eviction_policy() == "allkeys-lru"
        finally:
            node.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_a_slot_that_moved_is_found_once(cluster: Cluster) -> None:
    """The first command for it follows the node's word and later ones go there at once; a script goes along."""
    key = b"{moved}1"
    async with redis_client(cluster.url) as client:
        await client.call(b"SET", key, b"1")
        await until(lambda: not client._stale.is_set())  # type: ignore[attr-defined]
        await asyncio.sleep(0.5)  # it looks at the map no more
        source, target = await asyncio.to_thread(move_slot, cluster, slot_of(key))
        assert target.in_slot(slot_of(key)) == [key]
        before = redirections(source)
        assert await client.script(ECHO, [key], [b"x"]) == [key, b"x"]
        assert redirections(source) == before + 1
        assert await client.mget([b"{moved}2", key]) == [None, b"1"]
        assert await client.call(b"GET", key) == b"1"
        assert redirections(source) == before + 1


async def test_keys_on_their_way_are_found_with_asking(cluster: Cluster) -> None:
    """While a slot migrates, what is there already is read and written there, by a script the target does not hold yet too."""
    keys = [b"{way}%d" % i for i in range(4)]
    slot = slot_of(keys[0])
    source, target = cluster.owner(slot), other(cluster, cluster.owner(slot))
    async with redis_client(cluster.url) as client:
        for key in keys:
            await client.call(b"SET", key, key)
        with cluster.migrating(slot, target) as move:
            move(keys[:2])
            assert await client.mget(keys[:2]) == keys[:2]
            assert await client.mget(keys[2:]) == keys[2:]
            assert await asyncio.gather(*(client.script(ECHO, [keys[0]], [b"%d" % i]) for i in range(50))) == [
                [keys[0], b"%d" % i] for i in range(50)
            ]
            assert await client.call(b"SET", b"{way}new", b"n") == b"OK"
            with pytest.raises(SlotUnavailable, match=rf"^slot {slot} of the Redis Cluster: Redis answered: TRYAGAIN"):
                await client.mget(keys)
            assert cluster.owner(slot) is source
        assert await client.mget([*keys, b"{way}new"]) == [*keys, b"n"]


async def test_no_key_escapes_a_walk(cluster: Cluster) -> None:
    """Keys that go from a node not walked yet to one that was are given all the same; a slot that changes hands in between is told."""
    keys = {b"{walk}%d" % i for i in range(10)}
    slot = slot_of(b"{walk}")
    async with redis_client(cluster.url) as client:
        for key in keys:
            await client.call(b"SET", key, b"")
        last = next(link.address.port for link in reversed(client._primaries))  # type: ignore[attr-defined]
        if cluster.owner(slot).port != last:
            target = next(node for node in cluster.nodes if node.port == last)
            with cluster.migrating(slot, target):
                pass
        source = cluster.owner(slot)
        target = next(node for node in cluster.nodes if node.port == client._primaries[0].address.port)  # type: ignore[attr-defined]
        assert source is not target
        found = set[bytes]()
        with cluster.migrating(slot, target) as move:
            async for some in client.scan(b"{walk}*"):
                if source.in_slot(slot) and not found:
                    await asyncio.to_thread(move, sorted(keys))
                found.update(some)
            assert found == keys
            walk = client.scan(b"{walk}*")
            await anext(walk)
        with pytest.raises(StoreUnavailable, match="went elsewhere"):
            async for _ in walk:
                pass


async def test_one_living_seed_is_enough(cluster: Cluster) -> None:
    """Nodes of the URL may be gone, as long as one knows the others."""
    living = RedisAddress.parse(f"redis://127.0.0.1:{cluster.replicas[0].port}")
    dead = living.at("127.0.0.1", 1)
    async with RedisCluster([dead, living, dead.at("no-such-host.invalid", 1)]) as client:
        assert await client.call(b"SET", b"a", b"1") == b"OK"
        assert await client.mget([b"a", b"b", b"c"]) == [b"1", None, None]


def test_a_stack_waits_for_any_node(nodes: Cluster) -> None:
    """A cluster that runs elsewhere counts as ready when one of the nodes named answers."""
    port = nodes.primaries[0].port
    assert valkey.not_ready(nodes.url) is None
    assert valkey.not_ready(f"redis+cluster://127.0.0.1:1,127.0.0.1:{port}") is None
    assert "refused" in (valkey.not_ready("redis+cluster://127.0.0.1:1,127.0.0.1:2") or "")


async def test_a_cluster_that_is_away(nodes: Cluster) -> None:
    """Calls fail at once with the reason, which the health board hears, until the client is closed."""
    reasons: list[str | None] = []
    async with redis_client("redis+cluster://127.0.0.1:1,127.0.0.1:2", 0.2, reasons.append) as client:
        assert not client.connected
        for call in (client.call(b"GET", b"a"), client.mget([b"a"]), client.script(ECHO, [b"a"], []), client.everywhere(b"PING")):
            with pytest.raises(StoreUnavailable, match=r"cannot reach Redis at 127\.0\.0\.1"):
                await call
        with pytest.raises(StoreUnavailable):
            await anext(aiter(client.scan(b"*")))
    assert reasons
    assert None not in reasons
    client = redis_client(nodes.url)
    async with client:
        assert client.connected
    with pytest.raises(SlotUnavailable, match="closed"):
        await client.call(b"GET", b"a")


async def test_the_wrong_kind_of_url(cluster: Cluster, redis_url: str) -> None:
    """A server that is no cluster, and a node of a cluster taken for a server, are told with the way out."""
    reasons: list[str | None] = []
    async with redis_client(redis_url.replace("redis://", "redis+cluster://").removesuffix("/0"), 0.3, reasons.append) as client:
        await until(lambda: any("cluster support disabled" in (reason or "") for reason in reasons))
        with pytest.raises(StoreUnavailable, match="cluster support disabled"):
            await client.call(b"GET", b"a")
    away = next(node for node in cluster.nodes if node is not cluster.owner(slot_of(b"a")))
    async with redis_client(f"redis://127.0.0.1:{away.port}") as single:
        with pytest.raises(StoreUnavailable, match="MOVED") as caught:
            await single.call(b"GET", b"a")
        assert "redis+cluster://" in caught.value.mend
