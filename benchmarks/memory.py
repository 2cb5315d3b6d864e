"""How much memory the online store takes for an entity: count and mean over an hour, a day and a week, of entities that are seldom, often or
always busy; and, with `--entities 10_000_000`, how fast values are written and read at that size.

    python -m benchmarks.memory [--entities N]

The mark is 64 bytes for each entity and 24 for each tile. Measured on a real Valkey as the growth of `used_memory`, keys included.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figures import Figure

from tidemill import Event, FeatureView, count, mean
from tidemill.kernel.fold import empty_fence
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.local.services import choose
from tidemill.local.stack import Stack
from tidemill.online.writer import OnlineWriter
from tidemill.redis.link import RedisLink

PAID = Event("bench.paid", fields={"card": str, "at": int, "amount": float}, time="at")
VIEW = FeatureView("amounts", PAID, entity="card", features=[count(), mean("amount")], windows=["1h", "24h", "7d"], dedupe=0, partitions=1)
KERNEL = ViewKernel(VIEW)
START_MS = 1_767_225_600_000
WEEK_MS = 7 * 86_400_000
ENTITY_MARK_BYTES, TILE_MARK_BYTES = 64, 24
BATCH = 2_000
PROJECT = str(Path(__file__).with_name("features_project.py"))  # only so that a service that needs the store has one


class Amount(NamedTuple):
    """What the view folds of an event."""

    amount: float


class Taken(NamedTuple):
    """Bytes for each entity, tiles of each entity, and values written and read per second."""

    bytes_each: float
    tiles_each: float
    written_per_second: float
    read_per_second: float


def state_of(events: int, draw: random.Random) -> EntityState:
    """An entity with so many events at random moments of a week."""
    state = KERNEL.new_state()
    for time_ms in sorted(START_MS + draw.randrange(WEEK_MS) for _ in range(events)):
        KERNEL.apply(state, time_ms, None, Amount(draw.random()))
    return state


def tiles_in_reach(state: EntityState) -> int:
    """Tiles that a window can reach, the open ones included."""
    kept = [resolution.kept_tiles for resolution in KERNEL.resolutions]
    return sum(1 + int((tiles.ages <= most).sum()) for tiles, most in zip(KERNEL.packing.view(state), kept, strict=True))


async def take(redis_url: str, entities: int, events: int) -> Taken:
    """Fills an empty store."""
    draw, patterns = random.Random(1), 500
    states = [state_of(events, draw) for _ in range(patterns)]
    values = [KERNEL.encode(state) for state in states]
    async with RedisLink(redis_url, 30) as link:
        await link.call(b"FLUSHALL", b"SYNC")
        before, writer, fence = await used_bytes(link), OnlineWriter(link, "bench"), None
        began = time.monotonic()
        for first in range(0, entities, BATCH):
            after = b"%d" % first
            batch: dict[bytes, Any] = {b"%08d" % i: values[i % patterns] for i in range(first, min(first + BATCH, entities))}
            assert await writer.apply(VIEW.log, 0, fence, after, batch)
            fence = after
        written = entities / (time.monotonic() - began)
        taken = (await used_bytes(link) - before) / entities
        began, reads = time.monotonic(), min(entities, 100_000)
        for _ in range(0, reads, BATCH):
            await writer.load(VIEW.log, 0, [b"%08d" % draw.randrange(entities) for _ in range(BATCH)])
        read = reads / (time.monotonic() - began)
        await link.call(b"FLUSHALL", b"SYNC")
    return Taken(taken, sum(map(tiles_in_reach, states)) / patterns, written, read)


async def used_bytes(link: RedisLink) -> int:
    """Memory the store has allocated."""
    info: bytes = await link.call(b"INFO", b"memory")
    return next(int(line[12:]) for line in info.splitlines() if line.startswith(b"used_memory:"))


def figures(*, quick: bool = False, entities: int = 0) -> Iterator[Figure]:
    """Bytes for each entity beyond 24 for each tile, and the rates at that size."""
    assert len(empty_fence(KERNEL).encode()) < 200  # one fence for each partition does not count
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), project=PROJECT, services=choose(["serving"])) as stack:
        for events, label in ((1, "one event"), (20, "20 events in a week"), (2_000, "an event every five minutes")):
            size = entities or (20_000 if quick or events == 2_000 else 200_000)
            taken = asyncio.run(take(stack.redis_url, size, events))
            name = f"online memory, {size:,} entities with {label} ({taken.tiles_each:.0f} tiles each)"
            beside = {"mark": ENTITY_MARK_BYTES + TILE_MARK_BYTES * taken.tiles_each}
            yield Figure(name, taken.bytes_each, "bytes for each entity", beside)
            yield Figure(f"{name}: written", taken.written_per_second, "entities/s", {"read": taken.read_per_second})
            if entities and events == 1:
                return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory of the online store.")
    parser.add_argument("--entities", type=int, default=0, help="only the case of one event, with so many entities")
    for figure in figures(entities=parser.parse_args().entities):
        print(figure, flush=True)
