"""The loop beside two that could take its place: a model that is never trained again, and one that is trained at each month's begin.

The loop's answers are those that were really served. The two others are fitted here, with the same pipeline: on the first version's training set, and on
that and all requests whose outcome was known when the month began. No row is predicted by a model that knew an outcome of later.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from tidemill.gate.guards import calibration_error
from tidemill.models.artifact import ModelInput, stored_artifact
from tidemill.offline.store import OfflineStore
from tidemill.retrainings import RetrainingRecord, RetrainingStep
from tidemill.training.fitting import outputs

Floats = npt.NDArray[np.float64]
WITHOUT_WINDOWS = ("weather__", "aircraft_register__")
COUNTED = ("retrainings", "promotions", "rollbacks")
_TOLD: Mapping[RetrainingStep, str] = {
    "begun": "trained", "promoted": "promoted", "rejected": "rejected", "rolled back": "rolled back", "failed": "failed",
}  # fmt: skip


class Examples(NamedTuple):
    """Rows to learn from: `matrix` has a column for each of `names`, a category as its place in the list of the first version."""

    matrix: npt.NDArray[np.float32]
    labels: Floats
    names: list[str]


class Answered(NamedTuple):
    """Requests that were answered and whose outcome is known, in the order of time. `known_ms`: when it became known; `output`: what was served."""

    matrix: npt.NDArray[np.float32]
    time_ms: npt.NDArray[np.int64]
    known_ms: npt.NDArray[np.int64]
    outcome: Floats
    output: Floats


@dataclass(frozen=True)
class Quality:
    """Of answers to all requests: the area under the ROC curve, and the mean distance of probabilities and frequencies."""

    auc: float
    calibration_error: float


def quality(outcome: Floats, output: Floats) -> Quality:
    """How good answers are. Both outcomes must be among the rows."""
    return Quality(float(roc_auc_score(outcome, output)), calibration_error(outcome, output))


def months_of(time_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64]:
    """The month of each moment, UTC."""
    return time_ms.astype("datetime64[ms]").astype("datetime64[M]")


def known_before(times_ms: npt.NDArray[np.int64], known_ms: npt.NDArray[np.int64], month: np.datetime64) -> npt.NDArray[np.bool_]:
    """Which requests were made, and had their outcome, before a month began."""
    begin = int(month.astype("datetime64[ms]").astype(np.int64))
    return (times_ms < begin) & (known_ms < begin)


def placed(column: npt.NDArray[np.float32], texts: Sequence[str], of: Sequence[str]) -> npt.NDArray[np.float32]:
    """Places in one list of texts as places in another, NaN for those that it lacks."""
    place = {text: float(at) for at, text in enumerate(of)}
    moved = np.array([*(place.get(text, np.nan) for text in texts), np.nan], np.float32)
    return moved[np.where(np.isnan(column), len(texts), column).astype(np.int64)]


def training_set(offline: str, model: str, version: str) -> pa.Table:
    """The training set of a version, as it is stored."""
    return pq.read_table(io.BytesIO((Path(offline) / f"models/{model}/{version}/training.parquet").read_bytes()))


@lru_cache
def examples(offline: str, model: str, version: str) -> Examples:
    """The training set of a version, to learn from."""
    table = training_set(offline, model, version)
    inputs = stored_artifact(offline, model, version).manifest.inputs
    matrix = np.column_stack([_numbers(table[item.name], item) for item in inputs]).astype(np.float32)
    return Examples(matrix, table["label"].to_numpy(), [item.name for item in inputs])


@lru_cache
def answered(offline: str, model: str, first: str) -> Answered:
    """What was answered, from the results and the prediction log; categories as `first` numbers them, whichever version answered."""
    results = OfflineStore(offline).scan("results")
    results = results.filter((pc.field("model") == model) & (pc.field("status") == "joined")).sort_by(
        [("time", "ascending"), ("prediction", "ascending")]
    )
    logged = OfflineStore(offline).predictions(["id", "version", "inputs"])
    logged = logged.take(pc.index_in(results["prediction"], value_set=logged["id"].combine_chunks()))
    inputs = logged["inputs"].combine_chunks()
    matrix = inputs.flatten().to_numpy(zero_copy_only=False).reshape(len(logged), -1).astype(np.float32)
    versions = np.array(logged["version"].to_pylist())
    for version in set(versions) - {first}:
        rows = versions == version
        matrix[rows] = _as_first(matrix[rows], *(stored_artifact(offline, model, name).manifest.inputs for name in (version, first)))
    return Answered(
        matrix,
        *(results[name].cast(pa.int64()).to_numpy() for name in ("time", "known")),
        *(results[name].cast(pa.float64()).to_numpy() for name in ("outcome", "output")),
    )


def _as_first(matrix: npt.NDArray[np.float32], own: Sequence[ModelInput], first: Sequence[ModelInput]) -> npt.NDArray[np.float32]:
    columns = [
        placed(matrix[:, place], mine.categories, its.categories) if mine.is_category else matrix[:, place]
        for place, (mine, its) in enumerate(zip(own, first, strict=True))
    ]
    return np.column_stack(columns)


def _numbers(column: pa.ChunkedArray, item: ModelInput) -> npt.NDArray[Any]:
    """An input as the model gets it: a category is its place in the list of the input."""
    if item.is_category:
        column = pc.index_in(column, value_set=pa.array(item.categories, pa.string()))
    numbers: npt.NDArray[Any] = column.to_numpy()
    return numbers


def predicted(pipeline: Any, learn: tuple[Any, Floats], asked: Any) -> Floats:
    """What a pipeline says that is fitted on `learn`, its rows and labels."""
    with threadpool_limits(1, user_api="openmp"):  # the other processor has work
        return outputs(pipeline.fit(*learn), asked, probability=True).astype(np.float64)


def without_windows(pipeline: Any, offline: str, model: str, first: str) -> Floats:
    """The answers of the pipeline when it has no windows, fitted as the first version was."""
    before, asked = examples(offline, model, first), answered(offline, model, first)
    kept = [at for at, name in enumerate(before.names) if "__" not in name or name.startswith(WITHOUT_WINDOWS)]
    return predicted(pipeline, (before.matrix[:, kept], before.labels), asked.matrix[:, kept])


def by_calendar(pipeline: Any, offline: str, model: str, first: str, month: str) -> Floats:
    """The answers to all requests from a month on of a model that knows what was known when it began."""
    before, asked, begin = examples(offline, model, first), answered(offline, model, first), np.datetime64(month, "M")
    learnt = known_before(asked.time_ms, asked.known_ms, begin)
    learn = np.concatenate([before.matrix, asked.matrix[learnt]]), np.concatenate([before.labels, asked.outcome[learnt]])
    return predicted(pipeline, learn, asked.matrix[months_of(asked.time_ms) >= begin])


def told(steps: Iterable[RetrainingRecord], month: str) -> list[str]:
    """What a month's runs did, with the days, for example "trained 14 (drift)", "promoted 20"."""
    said = []
    for step in steps:
        at = datetime.fromtimestamp(step.at / 1000, UTC)
        if step.step in _TOLD and f"{at:%Y-%m}" == month:
            said.append(f"{_TOLD[step.step]} {at.day}" + (f" ({step.trigger})" if step.trigger else ""))
    return said


def counted(steps: Iterable[RetrainingRecord]) -> dict[str, int]:
    """How often it was trained, promoted, and taken back."""
    names = [step.step for step in steps]
    return dict(zip(COUNTED, (names.count("trained"), names.count("promoted"), names.count("rolled back")), strict=True))
