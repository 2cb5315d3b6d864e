"""The comparisons: one window against the reference. Each finding needs both evidence and a real size of change.

Evidence alone would make everything drift once there is enough data, size alone once there is too little. Evidence is a test whose level
is shared by all comparisons of a window: with a budget of 0.01, one stationary window in a hundred raises any alert, whatever the number of
inputs and rows. Size is a floor in the unit a person compares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri

from tidemill.models import Histogram
from tidemill.roc import auc_with_error

Kind = Literal["feature_drift", "prediction_drift", "performance", "data_quality"]
Floats = npt.NDArray[np.float64]

LEAST_EXPECTED = 5.0
PSI_FLOOR = 0.2
MISSING_FLOOR = 0.1
AUC_FLOOR = 0.02
CALIBRATION_FLOOR = 0.03
ERROR_FLOOR = 0.2


@dataclass(frozen=True)
class Finding:
    """One comparison. `drifted` when `statistic` exceeds `threshold` (evidence) and `effect` exceeds `floor` (size)."""

    kind: Kind
    subject: str
    test: str
    statistic: float
    threshold: float
    effect: float
    floor: float
    reference: float | None
    current: float | None

    @property
    def drifted(self) -> bool:
        """Whether both evidence and size say so."""
        return self.statistic > self.threshold and self.effect > self.floor


def compare_distribution(kind: Kind, subject: str, reference: Histogram, current: Histogram, level: float) -> Finding | None:
    """Two-sample chi-square over the bins (NaN left out), and the population stability index without its bias as size. None: too few values.

    Bins are joined with their neighbour until the smaller sample expects five values in each. For samples of n and m values from one law PSI is
    (bins - 1) (1/n + 1/m) on average, which is taken off.
    """
    a, b = _joined(np.array(reference.counts, dtype=float), np.array(current.counts, dtype=float))
    n, m = a.sum(), b.sum()
    if len(a) < 2 or not n or not m:
        return None
    statistic = float(((math.sqrt(m / n) * a - math.sqrt(n / m) * b) ** 2 / (a + b)).sum())
    p, q = (a + 0.5) / (n + 0.5 * len(a)), (b + 0.5) / (m + 0.5 * len(b))
    psi = float(((q - p) * np.log(q / p)).sum() - (len(a) - 1) * (1 / n + 1 / m))
    threshold = float(chdtri(len(a) - 1, level))
    return Finding(kind, subject, "chi-square and PSI", statistic, threshold, psi, PSI_FLOOR, _middle(reference), _middle(current))


def _joined(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Joins neighbouring bins until the smaller sample expects at least five values in each."""
    share = min(a.sum(), b.sum()) / max(a.sum() + b.sum(), 1.0)
    bins: list[list[float]] = []
    for pair in zip(a, b, strict=True):
        if bins and sum(bins[-1]) * share < LEAST_EXPECTED:
            bins[-1] = [bins[-1][0] + pair[0], bins[-1][1] + pair[1]]
        else:
            bins.append([*pair])
    if len(bins) > 1 and sum(bins[-1]) * share < LEAST_EXPECTED:
        last = bins.pop()
        bins[-1] = [bins[-1][0] + last[0], bins[-1][1] + last[1]]
    return np.array([pair[0] for pair in bins]), np.array([pair[1] for pair in bins])


def _middle(histogram: Histogram) -> float | None:
    """The edge nearest to the median: a number a person can compare."""
    counts = np.cumsum(histogram.counts)
    if not histogram.edges or not counts[-1]:
        return None
    return float(histogram.edges[min(int(np.searchsorted(counts, counts[-1] / 2)), len(histogram.edges) - 1)])


def compare_missing(subject: str, reference: Histogram, current: Histogram, level: float) -> Finding | None:
    """Whether more values are missing than in training: a two-proportion z test, one-sided."""
    if not reference.rows or not current.rows:
        return None
    before, now = reference.missing / reference.rows, current.missing / current.rows
    pooled = (reference.missing + current.missing) / (reference.rows + current.rows)
    error = math.sqrt(pooled * (1 - pooled) * (1 / reference.rows + 1 / current.rows))
    statistic = (now - before) / error if error else 0.0
    return Finding("data_quality", subject, "share missing", statistic, _z(level), now - before, MISSING_FLOOR, before, now)


def compare_auc(labels: Floats, scores: Floats, reference: float, reference_error: float, level: float) -> Finding | None:
    """Whether the model ranks worse than on the holdout: one-sided z test with both standard errors."""
    auc, error = auc_with_error(labels, scores)
    if math.isnan(auc):
        return None
    drop = reference - auc
    combined = math.hypot(error, reference_error)
    statistic = drop / combined if combined else math.copysign(math.inf, drop)
    return Finding("performance", "auc", "drop of AUC (DeLong)", statistic, _z(level), drop, AUC_FLOOR, reference, auc)


def compare_calibration(labels: Floats, scores: Floats, level: float) -> Finding | None:
    """Whether outcomes are as frequent as predicted: z = |sum(y - p)| / sqrt(sum p (1 - p)), two-sided."""
    spread = math.sqrt(float((scores * (1 - scores)).sum()))
    if not spread:
        return None
    difference = abs(float((labels - scores).sum()))
    size = difference / len(labels)
    return Finding("performance", "calibration", "observed against predicted rate", difference / spread, _z(level / 2), size, CALIBRATION_FLOOR,
                   float(scores.mean()), float(labels.mean()))  # fmt: skip


def compare_error(labels: Floats, values: Floats, reference: float, level: float) -> Finding | None:
    """Whether a regressor's mean absolute error has grown by more than a fifth: one-sided z test of the mean."""
    errors = np.abs(labels - values)
    if len(errors) < 2 or not reference:
        return None
    spread = float(errors.std(ddof=1)) / math.sqrt(len(errors))
    growth = float(errors.mean()) - reference
    statistic = growth / spread if spread else math.copysign(math.inf, growth)
    return Finding(
        "performance",
        "mae",
        "growth of mean absolute error",
        statistic,
        _z(level),
        growth / reference,
        ERROR_FLOOR,
        reference,
        float(errors.mean()),
    )


def _z(level: float) -> float:
    return float(-ndtri(level))
