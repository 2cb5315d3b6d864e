"""Two versions of a model on the same requests: what each answered or would have answered, and what became of it.

A pair is a prediction that both versions have: one answered it, or both were shadows. Its outcome is that of the prediction's result. Each
version loses something on each answered pair; the mean of the differences has a normal distribution where there are many pairs (central limit
theorem), so its interval holds with 95 % for one look. Who looks again and again needs a sequential test.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.models.artifact import Output
from tidemill.offline.store import OfflineStore
from tidemill.stats.roc import auc_with_error

Floats = npt.NDArray[np.float64]

_CLIPPED = 1e-6
_Z = 1.959964  # 97.5 % of the normal distribution


class Measure(NamedTuple):
    """A loss, smaller is better: its mean for each version, and the mean of the differences (the other's less the first's) with its 95 %
    interval; NaN with fewer than two pairs."""

    name: str
    first: float
    other: float
    difference: float
    low: float
    high: float


class PairedVersions(NamedTuple):
    """`pairs`: predictions that both have; `answered`: those with an outcome; `apart`: the mean absolute difference of their outputs.
    `auc`: of each version, for probabilities with both outcomes."""

    pairs: int
    answered: int
    apart: float
    measures: list[Measure]
    auc: tuple[float, float] | None


def paired_versions(store: OfflineStore, model: str, first: str, other: str, output: Output) -> PairedVersions:
    """Compares two versions over all that is in the offline store. Raises OfflineUnavailable, TornTable."""
    both = _outputs(store, model, first).join(_outputs(store, model, other), "id", join_type="inner", right_suffix="_other")
    known = both.join(_outcomes(store, model), "id", join_type="inner")
    apart = np.abs(both["output_other"].to_numpy() - both["output"].to_numpy())
    one, two, outcomes = (known[name].to_numpy().astype(np.float64) for name in ("output", "output_other", "outcome"))
    auc = None
    if output == "probability" and 0 < outcomes.sum() < len(outcomes):
        auc = auc_with_error(outcomes, one)[0], auc_with_error(outcomes, two)[0]
    return PairedVersions(len(both), len(known), float(apart.mean()) if len(apart) else math.nan, measures(one, two, outcomes, output), auc)


def measures(first: Floats, other: Floats, outcomes: Floats, output: Output) -> list[Measure]:
    """The losses of two versions on the same requests. A probability's: log loss and Brier score; a value's: absolute and squared error."""
    losses = {"log_loss": _log_loss, "brier": _squared} if output == "probability" else {"mae": _absolute, "mse": _squared}
    return [_measure(name, loss(outcomes, first), loss(outcomes, other)) for name, loss in losses.items()]


def _measure(name: str, first: Floats, other: Floats) -> Measure:
    if not len(first):
        return Measure(name, *[math.nan] * 5)
    difference = other - first
    reach = _Z * float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else math.nan
    mean = float(difference.mean())
    return Measure(name, float(first.mean()), float(other.mean()), mean, mean - reach, mean + reach)


def _log_loss(outcomes: Floats, outputs: Floats) -> Floats:
    clipped = np.clip(outputs, _CLIPPED, 1 - _CLIPPED)
    return -np.where(outcomes > 0, np.log(clipped), np.log1p(-clipped))


def _squared(outcomes: Floats, outputs: Floats) -> Floats:
    return (outcomes - outputs) ** 2


def _absolute(outcomes: Floats, outputs: Floats) -> Floats:
    return np.abs(outcomes - outputs)


def _outputs(store: OfflineStore, model: str, version: str) -> pa.Table:
    """Id and output of each prediction that a version answered, or would have answered as a shadow."""
    found = []
    for shadows in (False, True):
        if store.find("shadows" if shadows else "predictions") is not None:
            rows = store.predictions(["id", "model", "version", "output"], shadows=shadows)
            found.append(rows.filter((pc.field("model") == model) & (pc.field("version") == version)).select(["id", "output"]))
    if not found:
        return pa.table({"id": pa.array([], pa.string()), "output": pa.array([], pa.float64())})
    return pa.concat_tables(found).group_by("id", use_threads=False).aggregate([("output", "first")]).rename_columns(["id", "output"])


def _outcomes(store: OfflineStore, model: str) -> pa.Table:
    """Id and outcome of each prediction that has one."""
    snapshot = store.find("results")
    if snapshot is None:
        return pa.table({"id": pa.array([], pa.string()), "outcome": pa.array([], pa.float64())})
    rows = snapshot.scan(["prediction", "outcome"], (pc.field("model") == model) & pc.field("outcome").is_valid(), order=())
    return rows.rename_columns(["id", "outcome"])
