"""What goes wrong while the catalogue changes, by name. Each takes the world and does one thing to it, or to a process it picks."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.filling.processes import Apply, Archiver, Folder, Ingestion, LoadFile, StackProcess
from tests.simulation.filling.world import FillingWorld


def _one(world: FillingWorld, *kinds: type[StackProcess]) -> StackProcess | None:
    living = [process for kind in kinds for process in world.living(kind)]
    return world.draw.choice(living) if living else None


def _kill(world: FillingWorld, kind: type[StackProcess], again: Callable[[], StackProcess]) -> None:
    if process := _one(world, kind):
        world.note(process.name, "is killed")
        process.kill()
        world.loop.call_later(2 * world.draw.random(), again)


def _freeze(world: FillingWorld, *kinds: type[StackProcess]) -> None:
    if process := _one(world, *kinds):
        seconds = 6 * world.draw.random()
        world.note(process.name, f"stands still for {seconds:.1f} s")
        process.freeze(seconds)


def ingestion_killed(world: FillingWorld) -> None:
    """Ingestion is killed, and comes back."""
    _kill(world, Ingestion, world.new_ingestion)


def ingestion_stands(world: FillingWorld) -> None:
    """Ingestion stands still, longer or shorter than its session, and goes on as a zombie."""
    _freeze(world, Ingestion)


def ingestion_joins(world: FillingWorld) -> None:
    """One more member of ingestion's group, or one less."""
    living = world.living(Ingestion)
    if len(living) < 3:
        world.new_ingestion()
    else:
        living[0].kill()


def archiver_killed(world: FillingWorld) -> None:
    """The writer of the archive is killed, also in the middle of a commit, and comes back."""
    _kill(world, Archiver, world.new_archiver)


def archiver_stands(world: FillingWorld) -> None:
    """The writer of the archive stands still: the archive lags behind."""
    _freeze(world, Archiver, Folder)


def archiver_twice(world: FillingWorld) -> None:
    """A second writer of the archive."""
    if len(world.living(Archiver)) < 2:
        world.new_archiver()


def apply_killed(world: FillingWorld) -> None:
    """A job that applies is killed; somebody begins again."""
    _kill(world, Apply, world.new_apply)


def apply_stands(world: FillingWorld) -> None:
    """A job that applies stands still, another takes over, and the first goes on as a zombie."""
    if _one(world, Apply):
        _freeze(world, Apply)
        world.loop.call_later(3 * world.draw.random(), world.new_apply)


def apply_twice(world: FillingWorld) -> None:
    """Two apply at once, perhaps two different projects."""
    world.new_apply()
    if world.draw.random() < 0.5:
        world.want()
    world.new_apply()


def load(world: FillingWorld) -> None:
    """A file is loaded, for the first time or again."""
    again = world.files and world.draw.random() < 0.5
    world.new_load(world.draw.choice(world.files) if again else world.new_file())


def load_killed(world: FillingWorld) -> None:
    """A load is killed, also in the middle of a commit, and begun again."""
    process = world.new_load(world.draw.choice(world.files) if world.files else world.new_file())
    world.loop.call_later(2 * world.draw.random(), process.kill)
    world.loop.call_later(3 * world.draw.random(), world.new_load, process.file)


def disk(world: FillingWorld) -> None:
    """Commits are slow, and some fail, or succeed without saying so."""
    if process := _one(world, Archiver, LoadFile):
        process.lake.commit_seconds, process.lake.faults = 2.0 * world.draw.random(), world.draw.choice((0.0, 0.5))
        world.loop.call_later(4 * world.draw.random(), process.heal)


def kafka_network(world: FillingWorld) -> None:
    """Requests to the broker are lost, answered to nobody, or take effect when nobody waits any longer."""
    world.broker.link.faults = world.draw.choice((0.1, 0.3))
    world.loop.call_later(4 * world.draw.random(), setattr, world.broker.link, "faults", 0.0)


def kafka_slow(world: FillingWorld) -> None:
    """The broker takes up to a second for what takes milliseconds."""
    world.broker.link.slow_until = world.loop.now + 4 * world.draw.random()


def kafka_down(world: FillingWorld) -> None:
    """The broker is away."""
    world.broker.link.down_until = world.loop.now + 3 * world.draw.random()


FILLING_FAULTS: dict[str, Callable[[FillingWorld], None]] = {
    fault.__name__: fault
    for fault in (
        ingestion_killed, ingestion_stands, ingestion_joins, archiver_killed, archiver_stands, archiver_twice, apply_killed, apply_stands,
        apply_twice, load, load_killed, disk, kafka_network, kafka_slow, kafka_down,
    )
}  # fmt: skip
