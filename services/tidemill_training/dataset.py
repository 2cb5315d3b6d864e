"""Point-in-time training sets: every row holds exactly what a request at that moment would have been answered."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations import FeatureView, Model, Selection
from tidemill.errors import TidemillError
from tidemill.history import PartitionLog, Question, answer
from tidemill.kernel import ViewKernel
from tidemill.models import InputSpec
from tidemill.offline_store import OfflineStore
from tidemill.project import Project, load_project
from tidemill.topics import entity_key, partition_of
from tidemill.values import serve

_ROWS_WORTH_A_PROCESS = 20_000
Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingSet:
    """`matrix`: float32 of shape (rows, inputs), NaN where a request would see no value; `labels`: 1 or 0, or a number;
    `times_ms`: the requests' times, ascending; `subjects`: whom they were about; `inputs`: the columns."""

    matrix: Floats
    labels: npt.NDArray[np.float64]
    times_ms: Times
    subjects: list[str]
    inputs: list[InputSpec]

    def __len__(self) -> int:
        return len(self.labels)


def build(project: Project, spec: str, model: Model, store: OfflineStore, until_ms: int, note: Callable[[str], None] = lambda _: None) -> TrainingSet:
    """All announced subjects of a model with a request before `until_ms` whose outcome was known by then.

    `spec` names the project again, for the processes that share the work. Raises TidemillError when there is nothing to learn from.
    """
    spine = _spine(model, store, until_ms)
    if not len(spine["time"]):
        raise TidemillError(
            f"model {model.name!r} has no training examples: no announced subject has an outcome",
            mend=f"publish events {model.on.name!r} and {model.outcome.source.name!r}, and wait for the offline writer",
        )
    entities: list[dict[str, Any]] = spine["entities"]
    note(f"{len(entities):,} examples; reading {len(model.views)} views as they were")
    jobs = [_Job(spec, store.url, s.view.name, s.names, _keys(s, entities), spine["time"]) for s in model.selections]
    columns = np.concatenate([*_run(project, jobs), *_request_columns(model, entities)], axis=1, dtype=np.float32)
    return TrainingSet(columns, spine["value"], spine["time"], spine["subject"], input_specs(model, entities))


def input_specs(model: Model, entities: Iterable[dict[str, Any]]) -> list[InputSpec]:
    """The model's columns; the categories of a text column are those seen in the examples, sorted."""
    features = [InputSpec(name=name, kind="feature") for name in model.input_names[: len(model.input_names) - len(model.requests)]]
    for request in model.requests:
        if request.type is str:
            seen = sorted({str(row[request.name]) for row in entities if row.get(request.name) is not None})
            features.append(InputSpec(name=request.name, kind="category", categories=seen))
        else:
            features.append(InputSpec(name=request.name, kind="number"))
    return features


def _spine(model: Model, store: OfflineStore, until_ms: int) -> dict[str, Any]:
    """Announcements joined with outcomes, by time: the last announcement and the first outcome of each subject."""
    asked = store.scan("requests", ["partition", "offset", "model", "subject", "time", "entities"])
    asked = asked.filter((pc.field("model") == model.name) & (pc.field("time") < until_ms))
    known = store.scan("outcomes", ["partition", "offset", "model", "subject", "value", "known"])
    known = known.filter((pc.field("model") == model.name) & (pc.field("known") < until_ms))
    first = dict(zip(reversed(known["subject"].to_pylist()), reversed(known["value"].to_pylist()), strict=True))
    last = {subject: i for i, subject in enumerate(asked["subject"].to_pylist()) if subject in first}
    rows = asked.take(pa.array(last.values(), pa.int64())).sort_by([("time", "ascending"), ("subject", "ascending")])
    subjects = rows["subject"].to_pylist()
    return {
        "subject": subjects,
        "time": rows["time"].to_numpy(),
        "entities": [store.entities(value) for value in rows["entities"].to_pylist()],
        "value": np.array([first[subject] for subject in subjects], dtype=np.float64),
    }


def _keys(selection: Selection, entities: list[dict[str, Any]]) -> list[bytes | None]:
    name = selection.view.key.name
    return [None if row.get(name) is None else entity_key(row[name]) for row in entities]


def _request_columns(model: Model, entities: list[dict[str, Any]]) -> list[Floats]:
    columns = []
    for request, spec in zip(model.requests, input_specs(model, entities)[len(model.input_names) - len(model.requests) :], strict=True):
        column = [spec.encode(row.get(request.name)) for row in entities]
        columns.append(np.array(column, dtype=np.float32).reshape(-1, 1))
    return columns


@dataclass(frozen=True)
class _Job:
    """One view's columns for all examples."""

    spec: str
    url: str
    view: str
    names: tuple[str, ...]
    keys: list[bytes | None]
    times_ms: Times


def _run(project: Project, jobs: list[_Job]) -> list[Floats]:
    if len(jobs[0].times_ms) < _ROWS_WORTH_A_PROCESS if jobs else True:
        return [view_columns(project.views[job.view], OfflineStore(job.url), job) for job in jobs]
    workers = min(len(jobs), multiprocessing.cpu_count())
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_in_process, jobs))


def _in_process(job: _Job) -> Floats:
    return view_columns(load_project(job.spec).views[job.view], OfflineStore(job.url), job)


def view_columns(view: FeatureView, store: OfflineStore, job: _Job) -> Floats:
    """The chosen features of a view for each (key, time): float32 of shape (rows, features)."""
    kernel = ViewKernel(view)
    places = [[feature.name for feature in view.served].index(name) for name in job.names]
    result = np.full((len(job.keys), len(places)), math.nan, dtype=np.float32)
    partitions = [None if key is None else partition_of(key, view.partitions) for key in job.keys]
    table = store.scan(f"views/{view.name}")
    for partition in {partition for partition in partitions if partition is not None}:
        log = PartitionLog(view, table.filter(pc.field("partition") == partition))
        mine = [i for i, p in enumerate(partitions) if p == partition]
        rows = log.rows_known_at(job.times_ms[mine])
        questions = [Question(int(n), job.keys[i] or b"", int(job.times_ms[i])) for i, n in zip(mine, rows, strict=True)]
        for i, reading in zip(mine, answer(kernel, log, questions), strict=True):
            values = serve(view, reading, int(job.times_ms[i])).values
            result[i] = [values[place] for place in places]
    return result
