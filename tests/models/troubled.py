"""A pipeline without packages, whose first input says how it fails; and runners of it."""

from __future__ import annotations

import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tidemill.models.pipelines.courier import Terms
from tidemill.models.pipelines.runner import PipelineRunner
from tidemill.models.pipelines.wire import LoadedColumn, Loading
from tidemill.models.runner import Array

SLEEPS, BUSY, EXITS, KILLED, ABORTS, RAISES, HUNGRY, NOT_A_NUMBER, TALKS = range(101, 110)
COLUMNS = 3


def _busy() -> None:
    """Never leaves C code, and never gives the interpreter to another thread."""
    re.match(r"(a+)+b", "a" * 64)


_FAILS: dict[int, Callable[[], object]] = {
    SLEEPS: lambda: time.sleep(3600),
    BUSY: _busy,
    EXITS: lambda: os._exit(3),
    KILLED: lambda: os.kill(os.getpid(), signal.SIGKILL),
    ABORTS: os.abort,
    RAISES: lambda: dict[str, int]()["distance"],
    HUNGRY: lambda: np.ones(1 << 40),
    TALKS: lambda: print("a pipeline that talks", file=sys.stdout, flush=True),
}


class Troubled:
    """Gives the sum of a row as the probability, unless its first input is one of the numbers above."""

    def predict_proba(self, rows: Any) -> Any:
        """Of each row."""
        for row in rows:
            _FAILS.get(int(row[0]), lambda: None)()
        sums = np.where(rows[:, 0] == NOT_A_NUMBER, np.nan, rows.sum(axis=1))
        return np.column_stack([1 - sums, sums])


class Unloadable:
    """A pipeline whose pickle raises, ends its process, or takes all memory."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return _load, (self.how,)


def _load(how: str) -> Any:
    if how == "exit":
        os._exit(4)
    if how == "memory":
        return np.ones(1 << 40)
    raise ValueError(f"no {how} here")


def runner_of(pipeline: object, terms: Terms = Terms(), memory_mb: int = 4096) -> PipelineRunner:  # noqa: B008 - a value
    """A runner, with a worker of its own."""
    columns = [LoadedColumn(name, False, []) for name in "abc"]
    return PipelineRunner("late v1", Loading(columns, False, "probability", 2, memory_mb), pickle.dumps(pipeline), terms)


def row(first: float, second: float = 0.0) -> Array:
    """A row of inputs."""
    return np.array([[first, second, 0.25]], np.float32)


def answer(runner: PipelineRunner, asked: Array) -> float:
    """The probability for a row."""
    return float(runner.run({"features": asked})[0][0, 1])


def is_running(pid: int) -> bool:
    """Whether a process runs, and is not just waited for."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(holds: Callable[[], bool], what: str, limit_seconds: float = 180.0) -> None:
    """Waits until it holds. Fails when it does not."""
    end = time.monotonic() + limit_seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)
