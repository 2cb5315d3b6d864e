"""Running many histories, on all cores."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import NamedTuple

from tests.simulation.history import run
from tests.simulation.mutations import MUTATIONS
from tests.simulation.patches import simulated
from tests.simulation.world import Step, World

CHUNK = 100


class Outcome(NamedTuple):
    """What became of some histories: how many, and the seeds that went wrong with what was wrong."""

    histories: int
    wrong: dict[int, str]

    def __str__(self) -> str:
        kinds = Counter(what.partition(":")[0] for what in self.wrong.values())
        lines = [f"{len(self.wrong)} of {self.histories} histories went wrong ({', '.join(f'{kind}: {n}' for kind, n in kinds.items())})"]
        for seed, what in list(self.wrong.items())[:10]:
            lines.append(f"  {what}\n    python -m tests.simulation {seed}")
        return "\n".join(lines)


def replay(seed: int, mutation: str | None = None, story: list[Step] | None = None) -> World:
    """One history."""
    with ExitStack() as stack:
        stack.enter_context(simulated())
        if mutation is not None:
            stack.enter_context(MUTATIONS[mutation].applied())
        return run(seed, story)


def _some(seeds: range, mutation: str | None) -> dict[int, str]:
    wrong = {}
    with ExitStack() as stack:
        stack.enter_context(simulated())
        if mutation is not None:
            stack.enter_context(MUTATIONS[mutation].applied())
        for seed in seeds:
            what = run(seed).wrong
            if what is not None:
                wrong[seed] = what
    return wrong


def run_all(seeds: range, mutation: str | None = None, workers: int | None = None) -> Outcome:
    """Run the histories of all seeds in processes of their own, one per core."""
    chunks = [seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(workers or os.cpu_count(), get_context("spawn")) as pool:
        found: Iterable[dict[int, str]] = pool.map(_some, chunks, [mutation] * len(chunks))
        return Outcome(len(seeds), {seed: what for part in found for seed, what in part.items()})


def first_wrong(mutation: str, limit: int) -> tuple[int, str] | None:
    """The first seed that catches a mutation, and how."""
    with simulated(), MUTATIONS[mutation].applied():
        for seed in range(limit):
            what = run(seed).wrong
            if what is not None:
                return seed, what
    return None
