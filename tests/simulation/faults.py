"""What goes wrong, by name. Each takes the world and does one thing to it, or to a process it picks."""

from __future__ import annotations

from collections.abc import Callable

from faust.types import TP
from tests.simulation.broker import Log
from tests.simulation.lake import MirrorProcess
from tests.simulation.network import Link
from tests.simulation.workers import Member
from tests.simulation.world import World


def _member(world: World) -> Member | None:
    living = [member for member in world.members if member.alive]
    return world.draw.choice(living) if living else None


def _mirror(world: World) -> MirrorProcess | None:
    living = [mirror for mirror in world.mirrors if mirror.alive]
    return world.draw.choice(living) if living else None


def _for_a_while(world: World, link: Link, faults: float) -> None:
    link.faults = faults
    world.loop.call_later(4 * world.draw.random(), setattr, link, "faults", 0.0)


def crash(world: World) -> None:
    """A worker is killed, wherever it stands, and comes back."""
    if member := _member(world):
        world.note(member.name, "is killed")
        member.kill()
        world.loop.call_later(2 * world.draw.random(), world.new_member)


def freeze(world: World) -> None:
    """A worker stands still for longer or shorter than its session, and goes on as a zombie."""
    if member := _member(world):
        seconds = 5 * world.draw.random()
        world.note(member.name, f"stands still for {seconds:.1f} s")
        member.freeze(seconds)


def join(world: World) -> None:
    """One more worker."""
    if len([member for member in world.members if member.alive]) < 3:
        world.new_member()


def leave(world: World) -> None:
    """A worker ends in order."""
    if member := _member(world):
        world.note(member.name, "leaves")
        world.group.leave(member)
        world.loop.call_later(0.5 * world.draw.random(), member.kill)
        world.loop.call_later(2 * world.draw.random(), world.new_member)


def alone(world: World) -> None:
    """A worker that asks nobody: partitions have two owners for a while."""
    member = world.new_member(alone=True)
    world.loop.call_later(6 * world.draw.random(), member.kill)


def drop(world: World) -> None:
    """Slices are lost on their way to a worker."""
    if member := _member(world):
        member.loses = 0.4
        world.loop.call_later(3 * world.draw.random(), setattr, member, "loses", 0.0)


def store_network(world: World) -> None:
    """Requests to the store are lost, answered to nobody, or take effect when nobody waits any longer."""
    _for_a_while(world, world.server.link, world.draw.choice((0.1, 0.3, 0.6)))


def store_slow(world: World) -> None:
    """The store takes up to a second for what takes milliseconds."""
    world.server.link.slow_until = world.loop.now + 5 * world.draw.random()


def store_down(world: World) -> None:
    """The store is away."""
    world.server.link.down_until = world.loop.now + 1 + 11 * world.draw.random()


def store_falls_back(world: World) -> None:
    """A lagging replica takes over, or the log on disk has lost its tail."""
    world.note("store", "falls back")
    world.server.fall_back(world.draw)


def store_storm(world: World) -> None:
    """The store is slow, partitions have two owners, and it falls back again and again: what one applied the other applies anew."""
    world.server.link.slow_until = world.loop.now + 3
    alone(world)
    for _ in range(4):
        world.loop.call_later(3 * world.draw.random(), store_falls_back, world)


def store_flushed(world: World) -> None:
    """All is deleted."""
    world.server.flush()


def fence_deleted(world: World) -> None:
    """Somebody has a partition rebuilt."""
    partition = world.draw.choice(world.server.partitions)
    world.note("operator", "deletes the fence", partition)
    world.server.delete_fence(partition)


def entity_deleted(world: World) -> None:
    """Somebody deletes an entity; the audit finds out, and the fence is deleted."""
    partition = world.draw.choice([number for number in world.server.partitions if world.server.stored(number)] or [None])
    if partition is not None and partition not in world.altered:
        entity = world.draw.choice(list(world.server.stored(partition)))
        world.note("somebody", f"deletes entity {entity!r}", partition)
        world.altered.add(partition)
        world.alterations += 1
        world.server.delete_entity(partition, entity)
        world.loop.call_later(0.1 + 4 * world.draw.random(), _found_altered, world, partition)


def _found_altered(world: World, partition: int) -> None:
    if partition in world.altered:
        heal(world, partition)


def heal(world: World, partition: int) -> None:
    """Somebody has a partition rebuilt that was altered, or whose log is another one now."""
    world.note("operator", "deletes the fence", partition)
    world.server.delete_fence(partition)
    if partition in world.altered:
        world.altered.discard(partition)
        for member in world.members:  # one that has read what was altered would go on with it: see decision 0009
            member.kill()
        world.group.look()
        world.new_member()


def broker_network(world: World) -> None:
    """Requests to the broker go wrong."""
    _for_a_while(world, world.broker.link, 0.3)


def broker_down(world: World) -> None:
    """The broker is away."""
    world.broker.link.down_until = world.loop.now + 4 * world.draw.random()


def broker_lies(world: World) -> None:
    """Consumers skip, repeat, or are put elsewhere, without a word."""
    world.broker.lies = world.draw.choice((0.1, 0.4))
    world.loop.call_later(3 * world.draw.random(), setattr, world.broker, "lies", 0.0)


def _lose(world: World, tp: TP, end: int) -> None:
    log = world.broker.logs[tp]
    log.truncate(end)
    world.log_lost.add(tp)
    world.oracle.begin_again(log)
    world.broker.epoch += 1
    world.broker.link.down_until = world.loop.now + 0.5
    for _ in range(world.draw.choice((0, 3, 12))):
        world.produce(tp)


def _some_log(world: World) -> tuple[TP, Log]:
    tp = world.draw.choice(list(world.broker.logs))
    return tp, world.broker.logs[tp]


def log_truncated(world: World) -> None:
    """The broker comes back without a log's tail, which others may have read."""
    tp, log = _some_log(world)
    if log.start:
        return  # without the record before the fence there is nothing to prove the log by: see decision 0009
    end = world.draw.randint(log.start, log.end)
    world.note("broker", f"comes back with {end} of {log.end} records", tp.partition)
    _lose(world, tp, end)


def log_recreated(world: World) -> None:
    """The topic is deleted and made anew; other records come."""
    tp, log = _some_log(world)
    if log.start:
        return
    world.note("broker", "makes the log anew", tp.partition)
    _lose(world, tp, 0)


def log_expired(world: World) -> None:
    """Retention deletes records, perhaps beyond the fence."""
    tp, log = _some_log(world)
    if tp in world.log_lost and not log.start:
        return
    log.start = world.draw.randint(log.start, log.end)
    world.note("broker", f"deletes records below {log.start}", tp.partition)
    world.log_lost.add(tp)


def mirror_crash(world: World) -> None:
    """An offline writer is killed, also in the middle of a commit, and comes back."""
    if mirror := _mirror(world):
        world.note(mirror.name, "is killed")
        mirror.kill()
        world.loop.call_later(2 * world.draw.random(), world.new_mirror)


def mirror_freeze(world: World) -> None:
    """An offline writer stands still, also in the middle of a commit."""
    if mirror := _mirror(world):
        mirror.freeze(5 * world.draw.random())


def mirror_twice(world: World) -> None:
    """A second offline writer."""
    if len([mirror for mirror in world.mirrors if mirror.alive]) < 3:
        world.new_mirror()


def mirror_slow(world: World) -> None:
    """Commits take long: others come between a writer's look and its commit."""
    if mirror := _mirror(world):
        mirror.commit_seconds = 3.0 * world.draw.random()


def disk(world: World) -> None:
    """Commits fail, or succeed without saying so."""
    if mirror := _mirror(world):
        mirror.disk_faults = 0.5
        world.loop.call_later(4 * world.draw.random(), setattr, mirror, "disk_faults", 0.0)


def power_cut(world: World) -> None:
    """The machine of the offline writers loses power: the newest commit may be empty or half written."""
    world.note("power", "is cut")
    for mirror in world.mirrors:
        mirror.kill()
    world.table.cut_power(world.draw)
    world.loop.call_later(2 * world.draw.random(), world.new_mirror)


_BROKER = (broker_network, broker_down, broker_lies, log_truncated, log_recreated, log_expired)
_ONLINE = (
    crash, freeze, join, leave, alone, drop, store_network, store_slow, store_down, store_falls_back, store_storm, store_flushed,
    fence_deleted, entity_deleted,
)  # fmt: skip
_OFFLINE = (mirror_crash, mirror_freeze, mirror_twice, mirror_slow, disk, power_cut)

FAULTS: dict[str, Callable[[World], None]] = {fault.__name__: fault for fault in (*_BROKER, *_ONLINE, *_OFFLINE)}
ONLINE = tuple(fault.__name__ for fault in (*_ONLINE, *_BROKER))
OFFLINE = tuple(fault.__name__ for fault in (*_OFFLINE, *_BROKER))
