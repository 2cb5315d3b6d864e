"""Running histories: one, or many on all cores."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from typing import NamedTuple, Self

import pyarrow as pa
from tests.simulation import history
from tests.simulation.filling import history as filling
from tests.simulation.mutations import MUTATIONS
from tests.simulation.patches import simulated
from tests.simulation.world import AnyWorld, Step

CHUNK = 100
NICE = 19  # histories have no clock of their own: whatever runs beside them goes first
HASHES = {"PYTHONHASHSEED": "0"}
"""Production code goes through sets of keys: a seed stands for one history only where hashes are the same."""


class Outcome(NamedTuple):
    """What became of some histories: how many, the seeds that went wrong with what was wrong, and the safeguard that was taken out."""

    histories: int
    wrong: dict[int, str]
    mutation: str | None = None

    def __str__(self) -> str:
        kinds = Counter(what.partition(":")[0] for what in self.wrong.values())
        lines = [f"{len(self.wrong)} of {self.histories} histories went wrong ({', '.join(f'{kind}: {n}' for kind, n in kinds.items())})"]
        option = f" --mutation {self.mutation}" if self.mutation else ""
        for seed, what in sorted(self.wrong.items())[:10]:
            lines.append(f"  {what}\n    python -m tests.simulation {seed}{option}")
        return "\n".join(lines)


def is_filling(seed: int, mutation: str | None = None) -> bool:
    """Whether it is a history of a catalogue that changes: as the mutation needs it; without one every thirtieth is."""
    return MUTATIONS[mutation].filling if mutation else seed % 30 == 7


def replay(seed: int, mutation: str | None = None, story: list[Step] | None = None) -> AnyWorld:
    """One history."""
    with _rules(mutation):
        return _run(seed, mutation, story)


def _run(seed: int, mutation: str | None, story: list[Step] | None = None) -> AnyWorld:
    return filling.run(seed, story) if is_filling(seed, mutation) else history.run(seed, story)


@contextmanager
def _rules(mutation: str | None) -> Iterator[None]:
    with simulated(), MUTATIONS[mutation].applied() if mutation else nullcontext():
        yield


def _some(seeds: range, mutation: str | None) -> dict[int, str]:
    with _rules(mutation):
        return {seed: what for seed in seeds if (what := _run(seed, mutation).wrong) is not None}


def _begin() -> None:
    """What a process does first. What is imported stays, so no collection of garbage has to look at it: a fifth of the time. Tables of some
    rows are not worth a thread."""
    os.nice(NICE)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    gc.collect()
    gc.freeze()


class Cores:
    """Processes that run histories, one per core if their number is not given, for as long as the context lasts."""

    def __init__(self, processes: int | None = None) -> None:
        self._processes = processes or os.cpu_count() or 1

    def __enter__(self) -> Self:
        self._environment = dict(os.environ)
        os.environ |= HASHES  # of the processes, which are started as they are needed
        self._pool = ProcessPoolExecutor(self._processes, get_context("spawn"), _begin)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        os.environ.clear()
        os.environ |= self._environment

    def run_all(self, seeds: range, mutation: str | None = None) -> Outcome:
        """The histories of all seeds."""
        chunks = [seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)]
        found = self._pool.map(_some, chunks, [mutation] * len(chunks))
        return Outcome(len(seeds), {seed: what for part in found for seed, what in part.items()}, mutation)

    def first_wrong(self, mutation: str, limit: int) -> tuple[int, str] | None:
        """The first seed that catches a mutation, and how. Most are caught by one of the first three, so the first pieces are of one seed."""
        size = 1
        start = 0
        while start < limit:
            ahead = size * self._processes
            parts = [range(first, first + size) for first in range(start, start + ahead, size)]
            for wrong in self._pool.map(_some, parts, [mutation] * len(parts)):
                if wrong:
                    return min(wrong.items())
            start, size = start + ahead, min(2 * size, CHUNK)
        return None
