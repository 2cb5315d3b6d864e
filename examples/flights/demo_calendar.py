"""Two models that could take the loop's place: one that is never trained again, and one that is trained at each month's begin; and the first without windows.

All have the loop's pipeline. The first of them is the first version; the others are fitted on its training set, with or without all requests whose outcome
was known when the month began.
No row is predicted by a model that knew an outcome of later. They are fitted while the months are replayed, in a process that takes what the system leaves.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from demo_loop import Answered, Examples, Floats, answered, examples, months_of
from steps import DAY_MS
from threadpoolctl import threadpool_limits

from tidemill.declarations.project import load_project
from tidemill.models.artifact import stored_artifact
from tidemill.models.engine import load_engine
from tidemill.training.fitting import outputs

WITHOUT_WINDOWS = ("weather__", "aircraft_register__")
_WRITTEN_MS = 12 * DAY_MS  # of flights: about as many seconds, in which what was known is written to the tables


class Source(NamedTuple):
    """Where to learn from: the folder of the project, the offline store, a model, and its first version."""

    project: str
    offline: str
    model: str
    first: str


class Taught(NamedTuple):
    """A fitted pipeline. `rows`: of how many answered requests it knows the outcome; `columns`: the inputs that it takes."""

    pipeline: Any
    rows: int
    columns: list[int]

    def answers(self, matrix: npt.NDArray[np.float32]) -> Floats:
        """What it says to requests."""
        return outputs(self.pipeline, matrix[:, self.columns], probability=True).astype(np.float64)


class Compared(NamedTuple):
    """What was asked, and what the others say to it: the model without windows, the first version, and by month, to its requests alone, that of the calendar,
    which is the first version until the second month begins."""

    asked: Answered
    plain: Floats
    frozen: Floats
    calendar: list[Floats]


class Calendar:
    """Fits each model once the months that it knows are replayed. A context manager."""

    def __init__(self, source: Source, months: Sequence[str]) -> None:
        self._source, self._waiting = source, list(months[1:])
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=last_in_line)
        self._taught: list[Future[Taught]] = [self._pool.submit(without_windows, source)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def passed(self, time_ms: int) -> None:
        """Begins with the month that began some days before."""
        while self._waiting and time_ms >= begin_ms(self._waiting[0]) + _WRITTEN_MS:
            self._begin()

    def hurry(self) -> None:
        """Begins with all months that are left, and lets them run as any other process from now on."""
        while self._waiting:
            self._begin()
        if hasattr(os, "SCHED_IDLE"):
            for child in multiprocessing.active_children():
                os.sched_setscheduler(child.pid or 0, os.SCHED_OTHER, os.sched_param(0))

    def all(self) -> list[Taught]:
        """The model without windows, and those of all months but the first. Waits for them."""
        return [one.result() for one in self._taught]

    def _begin(self) -> None:
        self._taught.append(self._pool.submit(by_calendar, self._source, self._waiting.pop(0)))


def last_in_line() -> None:
    """Lets this process run only where no other wants to."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def begin_ms(month: str) -> int:
    """When a month begins, UTC."""
    return int(np.datetime64(month, "ms").astype(np.int64))


def known_before(asked: Answered, month: str) -> npt.NDArray[np.bool_]:
    """Which requests were made, and had their outcome, before a month began."""
    begin = begin_ms(month)
    return (asked.time_ms < begin) & (asked.known_ms < begin)


def without_windows(source: Source) -> Taught:
    """The pipeline when it has no windows, fitted as the first version was."""
    before = examples(*source[1:])
    return _fitted(source, before, [at for at, name in enumerate(before.names) if "__" not in name or name.startswith(WITHOUT_WINDOWS)])


def by_calendar(source: Source, month: str) -> Taught:
    """A model that knows what was known when a month began, as far as it is written."""
    before, asked = examples(*source[1:]), answered(*source[1:])
    known = known_before(asked, month)
    more = before._replace(
        matrix=np.concatenate([before.matrix, asked.matrix[known]]), labels=np.concatenate([before.labels, asked.outcome[known]])
    )
    return _fitted(source, more, list(range(len(before.names))))._replace(rows=int(known.sum()))


def _fitted(source: Source, learn: Examples, columns: list[int]) -> Taught:
    pipeline = load_project(source.project).models[source.model].pipeline()
    with threadpool_limits(1, user_api="openmp"):  # other processors have work
        return Taught(pipeline.fit(learn.matrix[:, columns], learn.labels), 0, columns)


def compare(source: Source, months: Sequence[str], taught: Sequence[Taught]) -> Compared:
    """What all say, once everything is written; `taught` as `Calendar.all` has it. What had not learnt all that it should know learns again."""
    asked, (plain, *later) = answered(*source[1:]), taught
    month = months_of(asked.time_ms).astype(str)
    frozen = load_engine(stored_artifact(source.offline, source.model, source.first)).predict_rows(asked.matrix)
    calendar = [frozen[month == months[0]]]
    for made, name in zip(later, months[1:], strict=True):
        whole = made.rows == int(known_before(asked, name).sum())
        calendar.append((made if whole else by_calendar(source, name)).answers(asked.matrix[month == name]))
    return Compared(asked, plain.answers(asked.matrix), frozen, calendar)
