"""Point-in-time training sets: every row has exactly the inputs that a request at that moment would have had."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidemill.declarations import FeatureView, Model, Request
from tidemill.declarations.project import Project, load_project
from tidemill.errors import TidemillError, UnknownTable
from tidemill.kernel.keys import partition_of
from tidemill.kernel.served import Served, serve
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import ModelInput, inputs_of
from tidemill.models.inputs import ModelInputs
from tidemill.offline.asked import asked_log
from tidemill.offline.history import Question, answer
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore

_ROWS_WORTH_A_PROCESS = 20_000
Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingSet:
    """`matrix`: float32 of shape (rows, inputs), NaN where a request would see no value; `labels`: 1 or 0, or a number; `times_ms`: the
    requests' times, ascending; `subjects`: the subject of each request; `inputs`: the columns."""

    matrix: Floats
    labels: npt.NDArray[np.float64]
    times_ms: Times
    subjects: list[str]
    inputs: list[ModelInput]

    def __len__(self) -> int:
        return len(self.labels)

    def to_parquet(self) -> bytes:
        """The set as a Parquet file, which is stored beside the model: subject, time, label, then the inputs by name."""
        columns: dict[str, Any] = {"subject": self.subjects, "time": self.times_ms, "label": self.labels}
        columns |= {spec.name: self.matrix[:, i] for i, spec in enumerate(self.inputs)}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        return bytes(sink.getvalue())


@dataclass(frozen=True)
class _Spine:
    """The examples without their features: subject, time, the values that the request would give, and the outcome."""

    subjects: list[str]
    times_ms: Times
    given: list[dict[str, Any]]
    labels: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Job:
    """One view's features for all examples. `project`, `store`: names, for work in another process (project "": in this process)."""

    project: str
    store: str
    view: str
    keys: list[bytes | None]
    times_ms: Times


def build(project: Project, spec: str | None, model: Model, store: OfflineStore, until_ms: int, note: Callable[[str], None]) -> TrainingSet:
    """The announced subjects of a model with a request before `until_ms` and an outcome that was known by then.

    `spec`: the project's folder, file or module, so that other processes can load it and help (None: this process does all). `note` gets
    messages about progress. Raises TidemillError when there are no examples.
    """
    spine = _read_spine(model, store, until_ms)
    if not spine.subjects:
        raise _nothing(model, "no announced subject has an outcome")
    categories = {r.name: _categories(r, spine.given) for r in model.requests if r.type is str}
    maker = ModelInputs(model, categories)
    note(f"{len(spine.subjects):,} examples; reading {len(model.views)} views as they were")
    keys = list(zip(*(maker.keys(given) for given in spine.given), strict=True))
    jobs = [
        _Job(spec or "", store.url, view.name, list(column), spine.times_ms) for (view, _), column in zip(maker.views, keys, strict=True)
    ]
    features = [matrix.tolist() for matrix in _run(project, store, jobs)]
    rows = [maker.row([Served(f[i], [], None) for f in features], given) for i, given in enumerate(spine.given)]
    columns = inputs_of(model.plan, categories)
    return TrainingSet(np.array(rows, dtype=np.float32), spine.labels, spine.times_ms, spine.subjects, columns)


def _read_spine(model: Model, store: OfflineStore, until_ms: int) -> _Spine:
    """Announcements joined with outcomes, in order of time. Of each subject, the last announcement and the first outcome count."""
    ours = (pc.field("model") == model.name) & (pc.field("known") < until_ms)
    try:
        asked = store.scan("requests", ["subject", "time", "entities"], ours & (pc.field("time") < until_ms))
        known = store.scan("outcomes", ["subject", "value"], ours)
    except UnknownTable as error:
        raise _nothing(model, f"the offline store has no {error.name}") from error
    first = dict(zip(reversed(known["subject"].to_pylist()), reversed(known["value"].to_pylist()), strict=True))
    last = {subject: i for i, subject in enumerate(asked["subject"].to_pylist()) if subject in first}
    rows = asked.take(pa.array(last.values(), pa.int64())).sort_by([("time", "ascending"), ("subject", "ascending")])
    subjects = rows["subject"].to_pylist()
    given = [msgspec.json.decode(text) for text in rows["entities"].to_pylist()]
    return _Spine(subjects, rows["time"].to_numpy(), given, np.array([first[subject] for subject in subjects], dtype=np.float64))


def _nothing(model: Model, why: str) -> TidemillError:
    return TidemillError(
        f"model {model.name!r} has no training examples: {why}",
        mend=f"publish events {model.on.name!r} and {model.outcome.source.name!r}, and let the offline writer reach them",
    )


def _categories(request: Request, given: Iterable[dict[str, Any]]) -> list[str]:
    return sorted({row[request.name] for row in given if isinstance(row.get(request.name), str)})


def _run(project: Project, store: OfflineStore, jobs: list[_Job]) -> list[npt.NDArray[np.float64]]:
    if not jobs or not jobs[0].project or len(jobs[0].keys) < _ROWS_WORTH_A_PROCESS:
        return [_view_features(project.views[job.view], store, job) for job in jobs]
    workers = min(len(jobs), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_in_process, jobs))


def _in_process(job: _Job) -> npt.NDArray[np.float64]:
    return _view_features(load_project(job.project).views[job.view], OfflineStore(job.store), job)


def _view_features(view: FeatureView, store: OfflineStore, job: _Job) -> npt.NDArray[np.float64]:
    """All features of a view for each (key, time): shape (rows, features), NaN where a request would see no value."""
    kernel = ViewKernel(view)
    result = np.full((len(job.keys), len(view.served)), math.nan)
    partitions = np.array([-1 if key is None else partition_of(key, view.partitions) for key in job.keys])
    snapshot = store.snapshot(view_folder(view.log))
    for partition in range(view.partitions):
        mine = np.flatnonzero(partitions == partition).tolist()
        log = asked_log(snapshot, view, partition, {job.keys[i] or b"" for i in mine}).by_knowledge()
        times_ms = job.times_ms[mine]
        rows = log.rows_known_at(times_ms)
        questions = [Question(n, job.keys[i] or b"", time_ms) for i, n, time_ms in zip(mine, rows.tolist(), times_ms.tolist(), strict=True)]
        distinct = list(dict.fromkeys(questions))  # many examples share an entity and a time
        readings = zip(distinct, answer(kernel, log, distinct), strict=True)
        values = {question: serve(view, reading, question.time_ms).values for question, reading in readings}
        if mine:
            result[mine] = [values[question] for question in questions]
    return result
