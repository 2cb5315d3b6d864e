"""What was served, as the stores have it, how good it was, and what the loop did meanwhile."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from tidemill.gate.guards import calibration_error
from tidemill.models.artifact import ModelInput, stored_artifact
from tidemill.offline.store import OfflineStore
from tidemill.retrainings import RetrainingRecord, RetrainingStep

Floats = npt.NDArray[np.float64]
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


def placed(column: npt.NDArray[np.float32], texts: Sequence[str], of: Sequence[str]) -> npt.NDArray[np.float32]:
    """Places in one list of texts as places in another, NaN for those that it lacks."""
    place = {text: float(at) for at, text in enumerate(of)}
    moved = np.array([*(place.get(text, np.nan) for text in texts), np.nan], np.float32)
    return moved[np.where(np.isnan(column), len(texts), column).astype(np.int64)]


def training_set(offline: str, model: str, version: str) -> pa.Table:
    """The training set of a version, as it is stored."""
    return pq.read_table(io.BytesIO((Path(offline) / f"models/{model}/{version}/training.parquet").read_bytes()))


def examples(offline: str, model: str, version: str) -> Examples:
    """The training set of a version, to learn from."""
    table = training_set(offline, model, version)
    inputs = stored_artifact(offline, model, version).manifest.inputs
    matrix = np.column_stack([_numbers(table[item.name], item) for item in inputs]).astype(np.float32)
    return Examples(matrix, table["label"].to_numpy(), [item.name for item in inputs])


def answered(offline: str, model: str, first: str) -> Answered:
    """What was answered, from the results and the prediction log as far as both are written; categories as `first` numbers them, whichever version answered."""
    results = OfflineStore(offline).scan("results")
    results = results.filter((pc.field("model") == model) & (pc.field("status") == "joined")).sort_by(
        [("time", "ascending"), ("prediction", "ascending")]
    )
    logged = OfflineStore(offline).predictions(["id", "version", "inputs"])
    places = pc.index_in(results["prediction"], value_set=logged["id"].combine_chunks())
    results, logged = results.filter(places.is_valid()), logged.take(places.drop_null())  # each table is written by itself
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
