"""One history of a catalogue that changes: traffic, changes and faults for a while, then calm, in which everything must come to its end."""

from __future__ import annotations

import asyncio

from tests.simulation.filling.faults import FILLING_FAULTS
from tests.simulation.filling.processes import Archiver, Ingestion, LoadFile
from tests.simulation.filling.world import FillingWorld
from tests.simulation.world import Step

FAULTY_SECONDS = 8.0
CALM_SECONDS = 30.0


def run(seed: int, story: list[Step] | None = None) -> FillingWorld:
    """Run the history of a seed; `wrong` of the world says how it ended."""
    world = FillingWorld(seed, story)
    world.loop.drive(_history(world), limit=10 * (FAULTY_SECONDS + CALM_SECONDS))
    return world


async def _history(world: FillingWorld) -> None:
    draw = world.draw
    kinds = draw.sample(list(FILLING_FAULTS), k=draw.randint(1, 6))
    world.note("history", f"with {', '.join(kinds)}")
    if draw.random() < 0.3:
        world.new_load(world.new_file())
    for begin in (world.new_ingestion, world.new_ingestion, world.new_archiver, world.new_folder):
        begin()
    actors = [_traffic(world), _changes(world), _faults(world, kinds)]
    tasks = [world.loop.create_task(actor) for actor in actors]
    await asyncio.sleep(FAULTY_SECONDS)
    for task in tasks:
        task.cancel()
    await _calm(world)
    if world.wrong is None:
        world.look()
    if world.wrong is None:
        world.note("check", "", verdict="everything is as it should be")


async def _traffic(world: FillingWorld) -> None:
    """Events come singly and in bursts."""
    draw, tps = world.draw, list(world.published)
    while True:
        tp = draw.choice(tps)
        for _ in range(draw.choice((1, 1, 2, 5, 9))):
            world.publish(tp)
        await asyncio.sleep(draw.expovariate(2.0))


async def _changes(world: FillingWorld) -> None:
    """Somebody puts the project in the catalogue, then changes its file and applies it, again and again."""
    while True:
        await asyncio.sleep(world.draw.expovariate(0.4))
        world.want()
        world.new_apply()


async def _faults(world: FillingWorld, kinds: list[str]) -> None:
    """One of the history's kinds of faults every now and then."""
    while True:
        await asyncio.sleep(world.draw.expovariate(1.0))
        kind = world.draw.choice(kinds)
        world.note("fault", kind)
        FILLING_FAULTS[kind](world)
        world.group.look()


async def _calm(world: FillingWorld) -> None:
    """I2: nothing happens any more but a few events; all must be routed, archived and folded, and what is declared must be in force.

    Some come when nothing of the time before is under way any more: they move an offset up again that a late commit has moved down.
    """
    world.note("history", "calm from now on")
    world.broker.link.heal()
    for process in world.processes:
        process.heal()
    began = world.loop.now
    while True:
        _operator(world)
        world.group.look()
        if int(world.loop.now - began) in (0, 1, 8, 9):
            for tp in world.published:
                world.publish(tp)
        await asyncio.sleep(1.0)
        waiting = world.waits()
        if waiting is None:
            return
        if world.loop.now - began > CALM_SECONDS:
            world.fail(f"I2: {waiting}")
            return


def _operator(world: FillingWorld) -> None:
    """Starts what has ended, and repeats commands until they succeed."""
    if not world.living(Ingestion):
        world.new_ingestion()
    if not world.living(Archiver):
        world.new_archiver()
    for file in world.files:
        if not world.is_loaded(file) and not any(process.file is file for process in world.living(LoadFile)):
            world.new_load(file)
    world.apply_for_good()
