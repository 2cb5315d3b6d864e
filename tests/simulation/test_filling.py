"""What no draw finds soon: a member of ingestion's group that is given back the partitions it had."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulation.filling.mutations import SAME_PARTITIONS, Changes
from tests.simulation.filling.project import STAGES
from tests.simulation.filling.world import FillingWorld
from tests.simulation.patches import patched, simulated

SECONDS = 20.0


async def _until_all_is_done(world: FillingWorld) -> None:
    """Waits until nothing is left to do."""
    until = world.loop.now + SECONDS
    while (waiting := world.waits()) is not None:
        assert world.loop.now < until, waiting
        await asyncio.sleep(0.5)


async def _given_back(world: FillingWorld) -> None:
    """A version is handed over. Then another member, which has not heard of it, has all partitions for a while, and routes what comes."""
    for begin in (world.new_ingestion, world.new_archiver, world.new_folder):
        begin()
    for stage in STAGES[:2]:
        for tp in world.published:
            world.publish(tp)
        world.wanted = stage
        world.last = world.new_apply()
        await _until_all_is_done(world)
    await asyncio.sleep(2.0)  # by now it works by the newest record
    (member,) = world.group.members
    for tp in world.published:
        world.publish(tp)
        world.broker.committed[tp] = world.broker.logs[tp].end, "1"
    world.group.generation += 1
    await member.assign(world.group.generation, set(world.published))
    await asyncio.sleep(2.0)
    for tp in world.published:
        world.publish(tp)
    await _until_all_is_done(world)
    world.look()


@pytest.mark.parametrize("changes", [(), SAME_PARTITIONS.changes])
def test_the_same_partitions_again(changes: Changes) -> None:
    """It looks by which catalogue others have routed meanwhile, and goes back; else a version lacks what came."""
    world = FillingWorld(0)
    with simulated(), patched(*changes):
        world.loop.drive(_given_back(world), limit=10 * SECONDS)
    assert (world.wrong is None) == (not changes), world.wrong
