"""One history: traffic and faults for a while, then calm, in which everything must come to its end."""

from __future__ import annotations

import asyncio

from faust.types import TP
from tests.simulation.faults import FAULTS, OFFLINE, ONLINE, heal
from tests.simulation.network import Process
from tests.simulation.project import ENTITIES, TOPIC
from tests.simulation.world import Step, World

from tidemill.checksums import proof_of
from tidemill.kernel.fences import Fence
from tidemill.offline.store import counter_name

FAULTY_SECONDS = 10.0
CALM_SECONDS = 30.0


def run(seed: int, story: list[Step] | None = None) -> World:
    """Run the history of a seed; `wrong` of the world says how it ended."""
    world = World(seed, story)
    world.loop.drive(_history(world), limit=10 * (FAULTY_SECONDS + CALM_SECONDS))
    return world


async def _history(world: World) -> None:
    draw = world.draw
    parts = draw.choice((ONLINE, ONLINE, OFFLINE, ONLINE + OFFLINE))
    kinds = draw.sample([name for name in FAULTS if name in parts], k=min(len(parts), draw.randint(1, 6)))
    world.note("history", f"with {', '.join(kinds)}")
    online, offline = parts is not OFFLINE, parts is not ONLINE
    if online:
        world.new_member()
        world.new_member()
    if offline:
        world.new_mirror()
    for tp in world.broker.logs:
        for _ in range(draw.randrange(4)):
            world.produce(tp)
    actors = [_traffic(world), _faults(world, kinds), _reader(world)]
    tasks = [world.loop.create_task(actor) for actor in actors]
    await asyncio.sleep(FAULTY_SECONDS)
    for task in tasks:
        task.cancel()
    await _calm(world, online, offline)
    if world.wrong is None:
        world.look_at_store()
        world.note("check", "", verdict="everything is as it should be")


async def _traffic(world: World) -> None:
    """Records come singly and in bursts."""
    draw, tps = world.draw, list(world.broker.logs)
    while True:
        await asyncio.sleep(draw.expovariate(2.0))
        tp = draw.choice(tps)
        for _ in range(draw.choice((1, 1, 2, 5))):
            world.produce(tp)


async def _faults(world: World, kinds: list[str]) -> None:
    """One of the history's kinds of faults every now and then."""
    while True:
        await asyncio.sleep(world.draw.expovariate(1.0))
        kind = world.draw.choice(kinds)
        world.note("fault", kind)
        FAULTS[kind](world)
        world.group.look()


async def _reader(world: World) -> None:
    """I8: who reads a fence and entities in one command sees what belongs together."""
    client = Process(world.loop, world.draw, "reader")
    while True:
        await asyncio.sleep(2.0 * world.draw.random())
        partition = world.draw.randrange(len(world.server.values))
        altered = partition in world.altered, world.alterations
        try:
            fence, values = await read(world, client, partition)
        except Exception:  # noqa: S112 - no answer
            continue
        if altered != (False, world.alterations):
            continue  # it may have read what somebody altered
        wrong = world.state_verdict(partition, fence, values, some=True)
        if wrong:
            world.fail(wrong.replace("I1", "I8"))


async def read(world: World, client: Process, partition: int) -> tuple[bytes | None, dict[bytes, bytes]]:
    """One MGET of some entities and their fence."""
    entities = world.draw.sample(ENTITIES, 2)
    found: tuple[bytes | None, dict[bytes, bytes]] = await client.ask(world.server.link, world.server.load, partition, entities)
    return found


async def _calm(world: World, online: bool, offline: bool) -> None:
    """I2: nothing happens any more but a few records and, at first, a lost answer; all must be applied."""
    world.note("history", "calm from now on")
    world.server.link.heal()
    world.broker.link.heal()
    world.broker.lies = 0.0
    world.server.link.faults = 0.1
    for member in world.members:
        member.loses = 0.0
    for mirror in world.mirrors:
        mirror.disk_faults = 0.0
    began = world.loop.now
    while True:
        _operator(world, online, offline)
        world.group.look()
        if world.loop.now - began < 2:
            for tp in world.broker.logs:
                world.produce(tp)
        elif world.loop.now - began > 4:
            world.server.link.faults = 0.0
        await asyncio.sleep(1.0)
        waiting = [what for what in (online and _online_waits(world), offline and _offline_waits(world)) if what]
        if not waiting:
            return
        if world.loop.now - began > CALM_SECONDS:
            world.fail(f"I2: {waiting[0]}")
            return


def _operator(world: World, online: bool, offline: bool) -> None:
    """Starts what has ended, and mends as messages say what was refused with good reason."""
    if online and not any(member.alive for member in world.members):
        world.new_member()
    if offline and not any(mirror.alive for mirror in world.mirrors):
        world.new_mirror()
    for tp, log in world.broker.logs.items():
        if log.start == 0 and (tp in world.log_lost or tp.partition in world.altered) and _refused(world, tp):
            heal(world, tp.partition)
    if world.log_lost and not any(log.start for log in world.broker.logs.values()) and _mirrors_refuse(world):
        world.note("operator", "moves the table away")
        for mirror in world.mirrors:
            mirror.kill()
        world.table.move_away()
        world.new_mirror()


def _refused(world: World, tp: TP) -> bool:
    return any(tp in member.worker.refused for member in world.members if member.alive and tp in member.assigned)


def _mirrors_refuse(world: World) -> bool:
    return any(mirror.mirror.refuses for mirror in world.mirrors if mirror.alive)


def _online_waits(world: World) -> str | None:
    for tp, log in world.broker.logs.items():
        if _refused(world, tp):
            if log.start and tp in world.log_lost:
                continue
            if tp not in world.log_lost and tp.partition not in world.altered:
                return f"partition {tp.partition} is refused for no reason"
        stored = world.server.fences.get(tp.partition)
        fence = Fence.decode(stored) if stored else None
        last = log.rows[-1]
        if fence is None or (fence.next, fence.proof) != (log.end, proof_of(last.key, last.value)):
            return f"partition {tp.partition} of the store stands at {fence.next if fence else None}, its log ends at {log.end}"
    return None


def _offline_waits(world: World) -> str | None:
    newest = world.table.commits[-1]
    if world.table.torn:
        return "the table cannot be read"
    if _mirrors_refuse(world) and any(log.start for log in world.broker.logs.values()):
        return None  # what the table lacks is gone: it is refused as a whole
    for tp, log in world.broker.logs.items():
        at = newest.counters.get(counter_name(TOPIC, tp.partition), 0)
        if at != log.end or newest.last.get(tp.partition) is not log.rows[-1]:
            return f"partition {tp.partition} of the table stands at {at}, its log ends at {log.end}"
    return None
