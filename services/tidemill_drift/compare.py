"""The comparisons: one window against the reference. Each finding needs both evidence and a real size of change.

Evidence alone would make everything drift once there is enough data, size alone once there is too little. Evidence is a test whose level
is shared by all comparisons of a window: with a budget of 0.01, one stationary window in a hundred raises any alert, whatever the number of
inputs and rows. Size is a floor in the unit a person compares. All numbers of a finding are finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri

from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.stats.histograms import Histogram
from tidemill.stats.roc import auc_with_error

Kind = Literal["feature_drift", "prediction_drift", "performance", "data_quality"]
Floats = npt.NDArray[np.float64]

LEAST_EXPECTED = 5.0
PSI_FLOOR = 0.2
MISSING_FLOOR = 0.1
AUC_FLOOR = 0.02
CALIBRATION_FLOOR = 0.03
ERROR_FLOOR = 0.2
_NEW_TEXTS = "texts that were not there in training"
_LEAST_ERROR = 1e-9  # a standard error of zero (all ranked right) must not become an infinite statistic


@dataclass(frozen=True)
class Finding:
    """One comparison. `drifted` when `statistic` exceeds `threshold` (evidence) and `effect` exceeds `floor` (size).

    `what` says in words what `reference` and `current` are.
    """

    kind: Kind
    subject: str
    test: str
    what: str
    statistic: float
    threshold: float
    effect: float
    floor: float
    reference: float
    current: float

    @property
    def drifted(self) -> bool:
        """Whether both evidence and size say so."""
        return self.statistic > self.threshold and self.effect > self.floor

    @property
    def calm(self) -> bool:
        """Whether the size is below half its floor, or below it without evidence of any change; in between it may come and go."""
        return self.effect < (self.floor / 2 if self.statistic > self.threshold else self.floor)


def compare_distribution(
    kind: Kind, subject: str, reference: Histogram, current: Histogram, level: float, categories: Sequence[str] = ()
) -> Finding | None:
    """Two-sample chi-square over the bins (NaN left out), and the population stability index without its bias as size. None: too few values.

    Bins are joined with their neighbour until the smaller sample expects five values in each. For samples of n and m values from one law PSI is
    (bins - 1) (1/n + 1/m) on average, which is taken off. `reference` and `current` of the finding are shares of the bin that adds most to PSI.
    """
    ends, a, b = _joined(np.array(reference.counts, dtype=float), np.array(current.counts, dtype=float))
    n, m = a.sum(), b.sum()
    if len(a) < 2 or not n or not m:
        return None
    statistic = float(((math.sqrt(m / n) * a - math.sqrt(n / m) * b) ** 2 / (a + b)).sum())
    p, q = (a + 0.5) / (n + 0.5 * len(a)), (b + 0.5) / (m + 0.5 * len(b))
    parts = (q - p) * np.log(q / p)
    psi = float(parts.sum() - (len(a) - 1) * (1 / n + 1 / m))
    most = int(parts.argmax())
    what = f"share of {_range(reference.edges, ends[most - 1] if most else 0, ends[most], categories)}"
    threshold = float(chdtri(len(a) - 1, level))
    return Finding(kind, subject, "chi-square and PSI", what, statistic, threshold, psi, PSI_FLOOR, float(a[most] / n), float(b[most] / m))


def _joined(a: Floats, b: Floats) -> tuple[list[int], Floats, Floats]:
    """Joins neighbouring bins until the smaller sample expects at least five values in each; with the end of each joined bin."""
    share = min(a.sum(), b.sum()) / max(a.sum() + b.sum(), 1.0)
    ends: list[int] = []
    weight = 0.0
    for i, both in enumerate(a + b, start=1):
        weight += both
        if weight * share >= LEAST_EXPECTED:
            ends.append(i)
            weight = 0.0
    ends[-1:] = [len(a)]  # what is left over goes to the last one
    starts = [0, *ends[:-1]]
    return ends, np.add.reduceat(a, starts), np.add.reduceat(b, starts)


def _range(edges: Sequence[float], start: int, end: int, categories: Sequence[str]) -> str:
    """The bins from `start` to before `end` in words."""
    if categories:
        first, last = (categories[min(max(int(edges[max(i, 0)]), 0), len(categories) - 1)] for i in (start - 1, end - 2))
        if categories[-1] == UNKNOWN_TEXT and end > len(edges):  # the last bin
            return _NEW_TEXTS if start == len(edges) else f"{first} and {_NEW_TEXTS}"
        return first if first == last else f"{first} to {last}"
    low, high = (f"{edges[i]:.4g}" if 0 <= i < len(edges) else "" for i in (start - 1, end - 1))
    if low == high:
        return f"value {low}"
    return f"values from {low} to {high}" if low and high else f"values of {low} or more" if low else f"values below {high}"


def compare_missing(subject: str, reference: Histogram, current: Histogram, level: float) -> Finding | None:
    """Whether more values are missing than in training: a two-proportion z test, one-sided."""
    if not reference.rows or not current.rows:
        return None
    before, now = reference.missing / reference.rows, current.missing / current.rows
    pooled = (reference.missing + current.missing) / (reference.rows + current.rows)
    error = math.sqrt(pooled * (1 - pooled) * (1 / reference.rows + 1 / current.rows))
    statistic = (now - before) / error if error else 0.0
    return Finding(
        "data_quality", subject, "share missing", "share missing", statistic, _z(level), now - before, MISSING_FLOOR, before, now
    )


def compare_auc(labels: Floats, scores: Floats, reference: float, reference_error: float, level: float) -> Finding | None:
    """Whether the model ranks worse than on the holdout: one-sided z test with both standard errors. None: a class occurs less than twice."""
    auc, error = auc_with_error(labels, scores)
    if math.isnan(auc):
        return None
    drop = reference - auc
    statistic = drop / max(math.hypot(error, reference_error), _LEAST_ERROR)
    return Finding("performance", "auc", "drop of AUC (DeLong)", "AUC", statistic, _z(level), drop, AUC_FLOOR, reference, auc)


def compare_calibration(labels: Floats, scores: Floats, level: float) -> Finding:
    """Whether outcomes are as frequent as predicted: z = |sum(y - p)| / sqrt(sum p (1 - p)), two-sided.

    The spread is at least one outcome, so that a model that is always certain is still judged.
    """
    spread = math.sqrt(max(float((scores * (1 - scores)).sum()), 1.0))
    difference = abs(float((labels - scores).sum()))
    return Finding(
        "performance", "calibration", "observed against predicted rate", "rate, predicted against observed", difference / spread, _z(level / 2),
        difference / len(labels), CALIBRATION_FLOOR, float(scores.mean()), float(labels.mean()),
    )  # fmt: skip


def compare_error(labels: Floats, values: Floats, reference: float, reference_error: float, level: float) -> Finding | None:
    """Whether a regressor's mean absolute error has grown by a fifth: one-sided z test of means. None: no reference, or fewer than two rows."""
    errors = np.abs(labels - values)
    if len(errors) < 2 or not reference:
        return None
    now = float(errors.mean())
    spread = math.hypot(float(errors.std(ddof=1)) / math.sqrt(len(errors)), reference_error)
    statistic = (now - reference) / max(spread, _LEAST_ERROR)
    return Finding(
        "performance", "mae", "growth of mean absolute error", "mean absolute error", statistic, _z(level), now / reference - 1, ERROR_FLOOR,
        reference, now,
    )  # fmt: skip


def _z(level: float) -> float:
    return float(-ndtri(level))
