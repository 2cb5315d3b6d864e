"""The audit finds every byte that is not the fold of the offline rows, and nothing else, also while writes go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
from msgspec.structs import replace
from tests.demo_state import demo
from tests.proof.test_replay import trips
from tests.proof.world import World

from tidemill.errors import TidemillError, UnknownView
from tidemill.kernel.fences import Fence
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import ID_BYTES
from tidemill.kernel.view import ViewKernel
from tidemill.online.keys import fence_key, state_key
from tidemill.proof import partition_audit as module
from tidemill.proof.audit import audit
from tidemill.proof.partition_audit import AuditReport, Mismatch
from tidemill.redis.link import RedisLink
from tidemill.streams.topics import view_topic

pytestmark = pytest.mark.integration
NAME = demo().name
ZONES = demo().views["zones"]
NORTH = partition_of(b"north", ZONES.partitions)
NORTH_KEY, NORTH_FENCE = state_key(NAME, ZONES.log, NORTH, b"north"), fence_key(NAME, ZONES.log, NORTH)


class Online:
    """The online store, as feature computation would have it."""

    def __init__(self, world: World, url: str) -> None:
        self.world, self.url, self.client = world, url, redis.Redis.from_url(url)

    def apply(self, share: float = 1.0) -> None:
        """Brings every partition to a share of its log, fence and entities in one transaction."""
        for view in self.world.project.views.values():
            for partition in range(view.partitions):
                end = int(share * len(self.world.logs[view_topic(NAME, view.log), partition]))
                fold, states = self.world.fold(view, partition, end)
                pipe = self.client.pipeline(transaction=True)
                for entity, state in states.items():
                    pipe.set(state_key(NAME, view.log, partition, entity), fold.kernel.encode(state))
                pipe.set(fence_key(NAME, view.log, partition), fold.fence.encode())
                pipe.execute()

    async def audit(self, *views: str, wait_seconds: float = 20) -> AuditReport:
        """Run the audit."""
        async with RedisLink(self.url, timeout_seconds=10) as link:
            return await audit(self.world.project, self.world.store, link, views, wait_seconds=wait_seconds)

    async def mismatches(self) -> list[Mismatch]:
        """What the audit finds, all of it."""
        report = await self.audit()
        assert report.mismatched == len(report.examples)
        return report.examples


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log with every kind of trouble in it, in the offline store."""
    world = World(demo(), tmp_path_factory.mktemp("offline"))
    world.publish(trips(150))
    for view in world.project.views.values():
        world.append(view, b"north", b"poison")
        for place in [place for place in world.logs if place[0] == view_topic(NAME, view.log)]:
            world.logs[place] += world.logs[place][3:6]  # routed again
    world.publish(trips(150, seed=2))
    world.write()
    return world


@pytest.fixture
def online(written: World, redis_url: str) -> Online:
    """An online store that equals the offline rows."""
    made = Online(written, redis_url)
    made.apply()
    return made


async def test_a_healthy_store(online: Online) -> None:
    """Every entity and every fence is compared, and nothing differs."""
    assert await online.audit() == AuditReport(2 + 3 + 8, 0, [])


async def test_a_store_behind_the_rows_is_healthy(online: Online) -> None:
    """Rows above the fence are not expected in the online store."""
    online.client.flushall()
    online.apply(0.4)
    assert await online.mismatches() == []


async def test_an_empty_store_has_nothing_to_compare(online: Online) -> None:
    """A store that has not begun is no mismatch."""
    online.client.flushall()
    assert await online.audit() == AuditReport(0, 0, [], left_out=8)


async def test_what_is_being_rebuilt_is_left_out(online: Online) -> None:
    """A partition that a builder writes is not served, so not compared; one that has to catch up is, whatever its `until` says."""
    fence = Fence.decode(online.client.get(NORTH_FENCE))  # type: ignore[arg-type]
    online.client.set(NORTH_FENCE, replace(fence, until=fence.next + 9).encode())
    assert await online.audit() == await online.audit("zones", "drivers")
    assert (await online.audit()).left_out == (await online.audit()).mismatched == 0
    online.client.set(NORTH_FENCE, replace(fence, next=0, until=9, builder="b").encode())
    report = await online.audit()
    assert (report.left_out, report.mismatched) == (1, 0)


async def test_one_view(online: Online) -> None:
    """Only the views named are compared; a name that is none is an error."""
    assert (await online.audit("drivers")).checked == 4 + 3
    with pytest.raises(UnknownView, match="unknown view 'zone'; known: drivers, zones"):
        await online.audit("zone")


async def test_an_altered_tile(online: Online) -> None:
    """A number of an entity that is another one is found, with both values by name of the feature."""
    kernel = ViewKernel(ZONES)
    state = kernel.decode(online.client.get(NORTH_KEY))  # type: ignore[arg-type]
    for r in range(len(kernel.resolutions)):
        state.head[kernel.packing.first(r)] += 1.0
    online.client.set(NORTH_KEY, kernel.encode(state))
    (found,) = await online.mismatches()
    assert (found.view, found.partition, found.entity) == ("zones", NORTH, "north")
    assert found.fence == len(online.world.logs[view_topic(NAME, ZONES.log), NORTH])
    assert "count_1h is " in found.what
    assert " online, " in found.what


async def test_the_same_features_from_other_tiles(online: Online) -> None:
    """Bytes are compared, not features: an old tile that no window reads now counts too."""
    kernel = ViewKernel(ZONES)
    state = kernel.decode(online.client.get(NORTH_KEY))  # type: ignore[arg-type]
    state.ids = state.ids[ID_BYTES:] + state.ids[:ID_BYTES]
    online.client.set(NORTH_KEY, kernel.encode(state))
    assert [found.what for found in await online.mismatches()] == ["the same features from different tiles"]


async def test_a_damaged_value(online: Online) -> None:
    """A value that fails its checksum is named as such."""
    value = bytearray(online.client.get(NORTH_KEY))  # type: ignore[arg-type]
    value[-1] ^= 1
    online.client.set(NORTH_KEY, bytes(value))
    (found,) = await online.mismatches()
    assert "fails its checksum" in found.what


async def test_a_deleted_and_an_extra_entity(online: Online) -> None:
    """An entity that is missing, and one that should not be there, are found by name."""
    online.client.rename(NORTH_KEY, state_key(NAME, ZONES.log, NORTH, "südwest".encode()))
    found = {item.entity: item.what for item in await online.mismatches()}
    assert found == {"north": "online store has no value", "südwest": "online store has a value, offline rows give none"}


@pytest.mark.parametrize(("change", "says"), [({"proof": 7}, "proof is 7, the rows give "), ({"late": 99}, "late is 99, the rows give ")])
async def test_a_wrong_fence(online: Online, change: dict[str, int], says: str) -> None:
    """A fence that counts or proves something else is found once, and what differs in it is said."""
    fence = Fence.decode(online.client.get(NORTH_FENCE))  # type: ignore[arg-type]
    online.client.set(NORTH_FENCE, Fence(**{name: getattr(fence, name) for name in fence.__struct_fields__} | change).encode())
    (found,) = await online.mismatches()
    assert (found.entity, found.partition, found.fence) == (None, NORTH, fence.next)
    assert found.what.startswith(f"fence: {says}")


async def test_a_fence_that_stands_too_low(online: Online) -> None:
    """Entities that hold more than their fence says are found."""
    fold, _ = online.world.fold(ZONES, NORTH, 40)
    online.client.set(NORTH_FENCE, fold.fence.encode())
    assert "north" in {found.entity for found in await online.mismatches()}


async def test_a_fence_that_is_none(online: Online) -> None:
    """A fence that cannot be read is found instead of ending the audit."""
    online.client.set(NORTH_FENCE, b"nonsense")
    (found,) = await online.mismatches()
    assert (found.entity, found.fence) == (None, 0)
    assert found.what == "fence: b'nonsense' is not a fence"


async def test_examples_are_bounded(online: Online) -> None:
    """All mismatches are counted, the first twenty are kept."""
    for i in range(30):
        online.client.set(state_key(NAME, ZONES.log, 0, b"extra-%d" % i), b"x")
    report = await online.audit()
    assert (report.mismatched, len(report.examples)) == (30, 20)


@contextlib.asynccontextmanager
async def meanwhile(online: Online, steps: list[float]) -> AsyncIterator[None]:
    """Applies more of the log, share by share, each while the audit waits for an answer; a share of -1 empties the store."""

    async def go_on() -> None:
        for share in steps:
            await asyncio.sleep(0)
            if share < 0:
                online.client.flushall()
            else:
                online.apply(share)

    task = asyncio.create_task(go_on())
    yield
    await task


async def test_writes_go_on(online: Online, monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions that are read at different fences are each compared with the rows below their own."""
    monkeypatch.setattr(module, "_PORTION", 1)
    online.client.flushall()
    online.apply(0.1)
    async with meanwhile(online, [i / 20 for i in range(2, 21)]):
        for _ in range(5):
            assert (await online.audit()).mismatched == 0
    assert (await online.audit()).mismatched == 0


async def test_the_store_is_emptied_meanwhile(online: Online, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that lost everything and begins again is compared from its new beginning."""
    monkeypatch.setattr(module, "_PORTION", 1)
    async with meanwhile(online, [1.0, -1, 0.1, 0.2, -1, 0.0, 0.5, 1.0]):
        for _ in range(5):
            assert (await online.audit()).mismatched == 0
    assert (await online.audit()).mismatched == 0


async def test_rows_that_are_not_there_yet(written: World, redis_url: str, tmp_path: Path) -> None:
    """The audit waits for the offline writer, also for its tables, and says so when it does not come."""
    behind = World(written.project, tmp_path)
    behind.logs |= written.logs
    online = Online(behind, redis_url)
    online.apply()
    with pytest.raises(TidemillError, match=r"view 'zones', partition \d: the offline store ends at 0, the online fence is \d+; see that"):
        await online.audit(wait_seconds=0.1)
    behind.write({place: len(log) // 2 for place, log in behind.logs.items()})
    with pytest.raises(TidemillError, match=r"the offline store ends at [1-9]\d*, the online fence is"):
        await online.audit(wait_seconds=0.1)
    waiting = asyncio.create_task(online.audit())
    await asyncio.sleep(0.3)
    await asyncio.to_thread(behind.write)
    assert (await waiting).mismatched == 0
