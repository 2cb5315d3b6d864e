"""What reads the store, on a cluster: feature serving and its health, and the audit."""

import asyncio

import pytest
from tests.cluster.nodes import Cluster
from tests.demo_state import NOW_MS, demo
from tests.proof.test_replay import trips
from tests.proof.world import World
from tests.serving.conftest import serving

from tidemill.kernel.keys import partition_of
from tidemill.online.keys import fence_key, state_key
from tidemill.online.writer import OnlineWriter
from tidemill.proof.audit import audit
from tidemill.redis.client import redis_client
from tidemill.redis.cluster import slot_of
from tidemill.redis.protocol import RedisClient
from tidemill.streams.topics import view_topic

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log of trips, in the offline store."""
    world = World(demo(), tmp_path_factory.mktemp("offline"))
    world.publish(trips(150))
    world.write()
    return world


async def fill(client: RedisClient, world: World) -> int:
    """Bring every partition to the end of its log; returns how many entities there are."""
    writer, entities = OnlineWriter(client, "demo"), 0
    for view in world.project.views.values():
        for partition in range(view.partitions):
            fold, states = world.fold(view, partition, len(world.logs.get((view_topic("demo", view.log), partition), [])))
            values = {entity: fold.kernel.encode(state) for entity, state in states.items()}
            assert await writer.apply(view.log, partition, None, fold.fence.encode(), values)
            entities += len(states)
    return entities


async def test_the_audit_walks_all_nodes(cluster: Cluster, world: World) -> None:
    """Every entity and fence of every node is compared; what was altered by hand on one of them is found."""
    async with redis_client(cluster.url) as client:
        entities = await fill(client, world)
        fences = sum(view.partitions for view in world.project.views.values())
        report = await audit(world.project, world.store, client)
        assert (report.checked, report.mismatched) == (entities + fences, 0)
        log = world.project.views["zones"].log
        await client.call(b"DEL", state_key("demo", log, partition_of(b"north", 4), b"north"))
        report = await audit(world.project, world.store, client)
        assert [found.entity for found in report.examples] == ["north"]


async def test_serving(cluster: Cluster, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request about entities of several nodes; with one node away it is ready still, and only entities there cannot be had."""
    monkeypatch.setattr("tidemill_serving.app.REDIS_TIMEOUT_SECONDS", 20.0)  # a busy machine is no Redis that is away
    log = world.project.views["zones"].log
    slots = [slot_of(fence_key("demo", log, partition)) for partition in range(4)]
    down, elsewhere = (
        cluster.owner(slots[0]),
        next(node for node in cluster.nodes if node.is_primary() and node is not cluster.owner(slots[0])),
    )
    if cluster.owner(slots[1]) is down:
        with cluster.migrating(slots[1], elsewhere):
            pass
    zones = {partition_of(b"zone-%d" % i, 4): f"zone-{i}" for i in range(50)}
    away = [cluster.owner(slots[partition]) is down for partition in range(4)]
    async with redis_client(cluster.url) as client:
        await fill(client, world)
    async with serving(demo(), cluster.url) as http:

        async def ask(*zones: str) -> int:
            body = {"features": ["zones:count_1d"], "entities": {"zone": list(zones)}, "time": NOW_MS}
            return (await http.post("/get-online-features", json=body)).status_code

        assert (await http.get("/health/ready")).status_code == 200
        assert await ask(*zones.values()) == 200
        down.kill()
        async with asyncio.timeout(180):
            while await ask(zones[0]) != 503:
                await asyncio.sleep(0.01)
        assert [await ask(zones[partition]) for partition in range(4)] == [503 if gone else 200 for gone in away]
        assert (await http.get("/health/ready")).status_code == 200
        await asyncio.to_thread(down.start)
        async with asyncio.timeout(180):
            while await ask(*zones.values()) != 200:
                await asyncio.sleep(0.01)
