"""The work of a training set, shared with other processes: the entities of a view are divided among them and this one."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.view_rows import KEY
from tidemill.declarations import FeatureView
from tidemill.declarations.project import load_project
from tidemill.declarations.written import WrittenEvent, WrittenView, read_event, read_view, write_event, write_view
from tidemill.training.asked import Floats, Ints, Questions, codes_of, features_of

QUESTIONS_WORTH_A_PROCESS = 20_000


class Sharing:
    """Computes the features of views. `spec`: the project's folder, file or module, which the other processes load (None: this process does
    all). As a context manager it ends the other processes.
    """

    def __init__(self, spec: str | None, questions: int) -> None:
        others = (os.cpu_count() or 1) - 1 if spec and questions >= QUESTIONS_WORTH_A_PROCESS else 0
        self._spec = spec or ""
        self._pool = ProcessPoolExecutor(others, mp_context=multiprocessing.get_context("spawn")) if others else None
        self._shares = others + 1
        for _ in range(others):
            self._start()

    def _start(self) -> None:
        """Lets a process start while this one reads."""
        if self._pool is not None:
            self._pool.submit(_load, self._spec)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def features(self, view: FeatureView, rows: pa.Table, questions: Questions) -> Floats:
        """`features_of`, each share of the entities in a process of its own."""
        if self._pool is None:
            return features_of(view, rows, questions)
        pa.default_memory_pool().release_unused()  # of reading: the other processes need as much again
        entities = rows[KEY].combine_chunks().dictionary_encode()
        held, asked = codes_of(entities.indices), codes_of(pc.index_in(questions.keys, value_set=entities.dictionary))
        found = np.full((len(asked), len(view.served)), np.nan)
        waiting: list[tuple[Ints, Future[Floats]]] = []
        for share in reversed(range(self._shares)):
            places = np.flatnonzero((asked >= 0) & (asked % self._shares == share))
            mine, part = _share(rows, np.flatnonzero(held % self._shares == share), questions, places)
            if share:
                waiting.append((places, self._pool.submit(_in_process, self._spec, write_view(view), write_event(view.source), mine, part)))
            else:  # this process has the last share, and works meanwhile
                found[places] = features_of(view, mine, part)
        for places, future in waiting:
            found[places] = future.result()
        return found


def _share(rows: pa.Table, held: Ints, questions: Questions, places: Ints) -> tuple[pa.Table, Questions]:
    """Some of the rows and some of the questions."""
    standing = np.full(len(rows) + 1, -1)
    standing[held] = np.arange(len(held))
    return rows.take(pa.array(held)), Questions(
        questions.keys.take(pa.array(places)), questions.times_ms[places], standing[questions.own[places]]
    )


@cache
def _load(spec: str) -> None:
    """Imports the project, whose aggregations a view may have."""
    load_project(spec)


def _in_process(spec: str, view: WrittenView, source: WrittenEvent, rows: pa.Table, questions: Questions) -> Floats:
    _load(spec)
    return features_of(read_view(view, read_event(source)), rows, questions)
