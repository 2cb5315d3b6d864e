"""Two versions of a model on the same requests: what each answered or would have answered, and what became of it.

A pair is a prediction that both versions have: one answered it, or both were shadows. Its outcome is that of the prediction's result. Each
version loses something on each answered pair; the mean of the differences has a normal distribution where there are many pairs (central limit
theorem), so its interval holds with 95 % for one look. Who looks again and again needs a sequential test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations.models import class_name
from tidemill.models.artifact import Output
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.offline.tables import probabilities_of_row
from tidemill.stats.roc import auc_with_error
from tidemill.stats.several import Places, auc_one_vs_rest, brier_losses, hits, log_losses

Floats = npt.NDArray[np.float64]

_OUTPUTS = ["id", "output", "probabilities"]
_OUTCOMES = ["id", "outcome", "label"]
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
    """`pairs`: predictions that both have; `answered`: those with an outcome; `apart`: the mean absolute difference of their outputs, or of their
    probabilities. `auc`: of each version, for probabilities with both outcomes; of several classes the mean of one against the rest."""

    pairs: int
    answered: int
    apart: float
    measures: list[Measure]
    auc: tuple[float, float] | None


def paired_versions(store: OfflineStore, model: str, first: str, other: str, output: Output) -> PairedVersions:
    """Compares two versions, which have the same kind of output, over all that is in the offline store. Raises OfflineUnavailable, TornTable."""
    both = _outputs(store, model, first).join(_outputs(store, model, other), "id", join_type="inner", right_suffix="_other")
    known = both.join(_outcomes(store, model), "id", join_type="inner")
    if output == "probabilities":
        return _of_classes(both, known)
    known = known.filter(pc.field("outcome").is_valid())
    apart = np.abs(both["output_other"].to_numpy() - both["output"].to_numpy())
    one, two, outcomes = (known[name].to_numpy().astype(np.float64) for name in ("output", "output_other", "outcome"))
    auc = None
    if output == "probability" and 0 < outcomes.sum() < len(outcomes):
        auc = auc_with_error(outcomes, one)[0], auc_with_error(outcomes, two)[0]
    return PairedVersions(len(both), len(known), float(apart.mean()) if len(apart) else math.nan, measures(one, two, outcomes, output), auc)


def _of_classes(both: pa.Table, known: pa.Table) -> PairedVersions:
    """Versions may know other classes: one gives no probability to those that only the other knows."""
    classes = sorted({name for side in _SIDES for text in both[side].drop_null().to_pylist() for name in probabilities_of_row(text)})
    names = [
        class_name(label if outcome is None else outcome)
        for outcome, label in zip(*map(_cells, [known] * 2, ("outcome", "label")), strict=True)
    ]
    places = np.array([classes.index(name) if name in classes else -1 for name in names], np.int64)
    first, other = (_matrix(known[side], classes) for side in _SIDES)
    apart = np.abs(_matrix(both[_SIDES[1]], classes) - _matrix(both[_SIDES[0]], classes))
    auc = auc_one_vs_rest(places, first), auc_one_vs_rest(places, other)
    found = measures(first, other, places.astype(np.float64), "probabilities")
    return PairedVersions(
        len(both), len(known), float(apart.mean()) if len(both) and classes else math.nan, found, None if math.isnan(sum(auc)) else auc
    )


def _cells(table: pa.Table, name: str) -> list[Any]:
    found: list[Any] = table[name].to_pylist()
    return found


def _matrix(column: pa.ChunkedArray, classes: Sequence[str]) -> Floats:
    rows = [probabilities_of_row(text) for text in column.to_pylist()]
    return np.array([[row.get(name, 0.0) for name in classes] for row in rows], np.float64).reshape(len(rows), len(classes))


def _wrong(places: Places, probabilities: Floats) -> Floats:
    found: Floats = 1 - hits(places, probabilities)
    return found


_SIDES = ("probabilities", "probabilities_other")
_CLASS_LOSSES: dict[str, Callable[[Places, Floats], Floats]] = {"log_loss": log_losses, "brier": brier_losses, "error_rate": _wrong}


def measures(first: Floats, other: Floats, outcomes: Floats, output: Output) -> list[Measure]:
    """The losses of two versions on the same requests. A probability's: log loss and Brier score; a value's: absolute and squared error. Of
    several classes, whose outcomes are places: log loss, Brier score and the share of wrong answers."""
    if output == "probabilities":
        places = outcomes.astype(np.int64)
        return [_measure(name, loss(places, first), loss(places, other)) for name, loss in _CLASS_LOSSES.items()]
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
    """Id, output and probabilities of each prediction that a version answered, or would have answered as a shadow."""
    found = [rows for shadows in (False, True) if (rows := _logged(store, model, version, shadows=shadows)) is not None]
    if not found:
        return pa.table([pa.array([], pa.string()), pa.array([], pa.float64()), pa.array([], pa.string())], _OUTPUTS)
    firsts = [("output", "first"), ("probabilities", "first")]
    return pa.concat_tables(found).group_by("id", use_threads=False).aggregate(firsts).rename_columns(_OUTPUTS)


def _logged(store: OfflineStore, model: str, version: str, *, shadows: bool) -> pa.Table | None:
    snapshot = store.find("shadows" if shadows else "predictions")
    if snapshot is None:
        return None
    columns = ["id", "model", "version", "output"]
    rows = _with_text(snapshot, "probabilities", lambda names: store.predictions([*columns, *names], shadows=shadows))
    return rows.filter((pc.field("model") == model) & (pc.field("version") == version)).select(_OUTPUTS)


def _outcomes(store: OfflineStore, model: str) -> pa.Table:
    """Id and outcome, a number or a text (`label`), of each prediction that has one."""
    snapshot = store.find("results")
    if snapshot is None:
        return pa.table([pa.array([], pa.string()), pa.array([], pa.float64()), pa.array([], pa.string())], _OUTCOMES)
    joined = (pc.field("model") == model) & (pc.field("status") == "joined")
    rows = _with_text(snapshot, "label", lambda names: snapshot.scan(["prediction", "outcome", *names], joined, order=()))
    return rows.rename_columns(_OUTCOMES)


def _with_text(snapshot: Snapshot, name: str, read: Callable[[list[str]], pa.Table]) -> pa.Table:
    """What `read` gives with a column of texts, which a table has not whose writer is older: there it is null."""
    if name in snapshot.columns:
        return read([name])
    table = read([])
    return table.append_column(name, pa.nulls(len(table), pa.string()))
