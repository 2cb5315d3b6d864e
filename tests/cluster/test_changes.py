"""Slots that migrate and nodes that fail while a writer and a reader of each partition go on: nothing read is ever torn, nothing is lost."""

import asyncio
import signal
import time
from collections.abc import Callable

import pytest
from tests.cluster.hammer import Hammer, Log, hammering
from tests.cluster.nodes import Cluster, wait_until
from tests.frozen import freeze

from tidemill.errors import SlotUnavailable
from tidemill.online.writer import OnlineWriter
from tidemill.redis.client import redis_client
from tidemill.redis.protocol import RedisClient

pytestmark = pytest.mark.integration


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something to hold, thirty seconds at most."""
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.005)


async def stored(client: RedisClient) -> dict[bytes, bytes | None]:
    """Everything in the cluster."""
    keys = [key async for some in client.scan(b"*") for key in some]
    return dict(zip(keys, await client.mget(keys), strict=True))


def expected(logs: list[Log]) -> dict[bytes, bytes | None]:
    """What must be there once the logs are folded."""
    return {key: value for log in logs for key, value in log.keys().items()}


async def test_a_slot_migrates_classically(cluster: Cluster) -> None:
    """Key by key, fence last and fence first: commands follow to the target, those split between both nodes are refused and asked again."""
    steady, growing = Log(0), Log(1, every=10)
    async with redis_client(cluster.url) as client:
        async with hammering(client, [steady, growing]) as (one, two):
            await until(lambda: min(one.at, two.at) > 300)
            await asyncio.to_thread(_migrate_slowly, cluster, steady, one, fence_first=False)
            await asyncio.to_thread(_migrate_slowly, cluster, growing, two, fence_first=True)
        assert await stored(client) == expected([steady, growing])
    assert "TRYAGAIN" in two.reasons
    assert (one.rewinds, two.rewinds) == (0, 0)


def _migrate_slowly(cluster: Cluster, log: Log, hammer: Hammer, *, fence_first: bool) -> None:
    source = cluster.owner(log.slot)
    target = next(node for node in cluster.nodes if node.is_primary() and node is not source)
    with cluster.migrating(log.slot, target) as move:
        fence, *rest = sorted(source.in_slot(log.slot), key=lambda key: key != log.fence_key)
        keys = [fence, *rest] if fence_first else [*rest, fence]
        for i in range(0, len(keys), 4):
            move(keys[i : i + 4])
            time.sleep(0.01)
        if not fence_first:  # no entity is new, so all goes on although the slot belongs to nobody for good
            at, reads = hammer.at, hammer.reads
            while hammer.at < at + 50 or hammer.reads < reads + 50:
                time.sleep(0.01)
    assert cluster.owner(log.slot) is target


async def test_a_slot_migrates_at_once(cluster: Cluster) -> None:
    """Servers that migrate a slot as a whole hold it up for a moment only; no command is ever split."""
    log = Log(2, every=10)
    source = cluster.owner(log.slot)
    target = next(node for node in cluster.nodes if node.is_primary() and node is not source)
    if b"migrateslots" not in b"".join(source.ask("CLUSTER", "HELP")).lower():
        pytest.skip("this server migrates slots key by key only")
    async with redis_client(cluster.url) as client:
        async with hammering(client, [log]) as (hammer,):
            await until(lambda: hammer.at > 300)
            await asyncio.to_thread(source.ask, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", log.slot, log.slot, "NODE", target.id)
            await asyncio.to_thread(wait_until, lambda: cluster.owner(log.slot) is target, "the slot has moved")
        assert await stored(client) == expected([log])
    assert (hammer.rewinds, "TRYAGAIN" in hammer.reasons) == (0, False)


async def test_fail_over_to_a_lagging_replica(cluster: Cluster) -> None:
    """The promoted replica lacks acknowledged batches: fence and entities went back together, the writer goes back to it, all is whole."""
    logs = [Log(partition) for partition in range(4)]
    async with redis_client(cluster.url) as client:
        async with hammering(client, logs) as hammers:
            victim = hammers[0]
            await until(lambda: victim.at > 300)
            primary = cluster.owner(logs[0].slot)
            concerned = [cluster.owner(log.slot) is primary for log in logs]

            def meanwhile() -> None:
                begin = victim.at
                while victim.at < begin + 200:
                    time.sleep(0.01)

            await asyncio.to_thread(cluster.fail_over_lagging, primary, meanwhile)
            await until(lambda: victim.lost >= 200)
        assert await stored(client) == expected(logs)
    assert [hammer.rewinds > 0 for hammer in hammers] == concerned


async def test_a_node_is_down(cluster: Cluster) -> None:
    """Only the slots of a node that was killed are away, at once; the others are read and written all the while, and it is found again."""
    reasons: list[str | None] = []
    logs = [Log(partition, records=500) for partition in range(4)]
    async with redis_client(cluster.url, 1.0, reasons.append) as client:
        async with hammering(client, logs) as hammers:
            down = cluster.owner(logs[0].slot)
            away = [log for log in logs if cluster.owner(log.slot) is down]
            await until(lambda: hammers[0].at > 50)
            down.kill()
            await until(lambda: all(hammer.at == 500 for hammer, log in zip(hammers, logs, strict=True) if log not in away))
            await until(lambda: hammers[0].refused_reads > 0 and hammers[0].refused_writes > 0)
            assert hammers[0].at < 500
            writer = OnlineWriter(client, "demo")
            found = await writer.fences([log.place for log in logs])
            assert [isinstance(fence, SlotUnavailable) for fence in found] == [log in away for log in logs]
            assert await writer.eviction_policy() == "noeviction"
            with pytest.raises(SlotUnavailable, match=f"slot {logs[0].slot} of"):
                await writer.load(*logs[0].place, [b"a"])
            assert client.connected
            await asyncio.to_thread(down.start)
        assert await stored(client) == expected(logs)
    assert reasons[-1] is None
    assert sum(hammer.rewinds for hammer in hammers) == 0


async def test_a_node_hangs(cluster: Cluster) -> None:
    """A primary that stands still and is replaced: its callers wait for one time-out, then find the promoted replica."""
    logs = [Log(partition, records=500) for partition in range(4)]
    async with redis_client(cluster.url, 0.5) as client:
        async with hammering(client, logs) as hammers:
            await until(lambda: hammers[0].at > 50)
            hung = cluster.owner(logs[0].slot)
            replica = cluster.replica_of(hung)
            freeze(hung.process.pid)
            try:
                await asyncio.to_thread(replica.ask, "CLUSTER", "FAILOVER", "TAKEOVER")
                await until(lambda: all(hammer.at == 500 for hammer in hammers))
            finally:
                hung.send(signal.SIGCONT)
        assert await stored(client) == expected(logs)
