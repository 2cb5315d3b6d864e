"""The work of a training set, shared with other processes: the entities of a view are divided among them and this one."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from tidemill.declarations import FeatureView
from tidemill.declarations.project import load_project
from tidemill.declarations.written import WrittenEvent, WrittenView, read_event, read_view, write_event, write_view
from tidemill.training.asked import Answers, Questions, at_once, codes_of, nothing, one_by_one, part_of

QUESTIONS_WORTH_A_PROCESS = 20_000


class Sharing:
    """Computes the features of views. `spec`: the project's folder, file or module, which the other processes load (None: this process does
    all). As a context manager it ends the other processes.
    """

    def __init__(self, spec: str | None) -> None:
        self._others = (os.cpu_count() or 1) - 1 if spec else 0
        self._spec = spec or ""
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def features(self, view: FeatureView, rows: pa.Table, questions: Questions) -> Answers:
        """`features_of`; many questions that must be answered one by one are shared, each share of the entities in a process of its own."""
        found, left = at_once(view, rows, questions)
        if len(left):
            rows, questions = part_of(rows, questions, left)
            shared = self._others and len(left) >= QUESTIONS_WORTH_A_PROCESS
            found[left] = self._in_shares(view, rows, questions) if shared else one_by_one(view, rows, questions)
        return found

    def _in_shares(self, view: FeatureView, rows: pa.Table, questions: Questions) -> Answers:
        self._pool = self._pool or ProcessPoolExecutor(self._others, mp_context=multiprocessing.get_context("spawn"))
        asked = codes_of(questions.keys.dictionary_encode().indices) % (self._others + 1)
        shares = [np.flatnonzero(asked == share) for share in range(self._others + 1)]
        written = self._spec, write_view(view), write_event(view.source)
        waiting = [self._pool.submit(_in_process, *written, *part_of(rows, questions, places)) for places in shares[1:]]
        found = nothing(view, len(asked))
        found[shares[0]] = one_by_one(view, *part_of(rows, questions, shares[0]))  # this process has a share too, and works meanwhile
        for places, future in zip(shares[1:], waiting, strict=True):
            found[places] = future.result()
        return found


@cache
def _load(spec: str) -> None:
    """Imports the project, whose aggregations a view may have."""
    load_project(spec)


def _in_process(spec: str, view: WrittenView, source: WrittenEvent, rows: pa.Table, questions: Questions) -> Answers:
    _load(spec)
    return one_by_one(read_view(view, read_event(source)), rows, questions)
