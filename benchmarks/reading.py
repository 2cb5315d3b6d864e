"""Latency of feature serving while 10,000 events/s are folded into the same store, beside its latency when nothing is.

The readers ask at a steady pace: clients that ask as fast as they are answered would take every core whatever else happens.

python -m benchmarks.reading
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator

import msgspec
from benchmarks.features import KEYS, MINUTE_MS, PROJECT, Source, fold_backlog, produce, running
from benchmarks.figures import Figure
from benchmarks.load import Load, run_load

from tidemill.local.services import choose
from tidemill.local.stack import Stack

PER_SECOND = 10_000
CLIENTS, READS_PER_SECOND = 4, 400


def bodies() -> list[bytes]:
    """Requests for the features of one random key each."""
    draw = random.Random(3)
    names = [f"amounts:{feature.name}" for feature in PROJECT.views["amounts"].served]
    return [msgspec.json.encode({"features": names, "entities": {"card": [f"card-{draw.randrange(KEYS)}"]}}) for _ in range(500)]


def read(stack: Stack, seconds: float) -> Load:
    """What steady readers see."""
    return run_load(stack.urls["serving"], "/get-online-features", bodies(), CLIENTS, seconds, READS_PER_SECOND)


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Median and 99th percentile."""
    seconds = 3.0 if quick else 10.0
    with running(choose(["features", "serving"])) as stack:
        source = Source()
        fold_backlog(stack, source, 60_000, 0, MINUTE_MS)
        stack.wait_ready("serving")
        read(stack, 1.0)  # warm
        idle = read(stack, seconds)
        folding = threading.Thread(target=lambda: asyncio.run(produce(stack, source, PER_SECOND, seconds + 2)))
        folding.start()
        busy = read(stack, seconds)
        folding.join()
    for name, while_folding, while_idle in (("p50", busy.p50_ms, idle.p50_ms), ("p99", busy.p99_ms, idle.p99_ms)):
        yield Figure(f"feature serving while {PER_SECOND:,} events/s are folded: {name}", while_folding, "ms", {"idle": while_idle})


if __name__ == "__main__":
    for figure in figures():
        print(figure, flush=True)
