"""The comparisons of a model of several classes: how often it is right, what its probabilities are worth, and classes that it never saw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from tidemill.stats.several import Places, hits, log_losses
from tidemill_drift.compare import ERROR_FLOOR, Finding, Floats, compare_calibration

ACCURACY_FLOOR = 0.05
UNKNOWN_FLOOR = 0.01
_LEAST_ERROR = 1e-9


def compare_accuracy(places: Places, probabilities: Floats, reference: float, reference_error: float, level: float) -> Finding:
    """Whether the model answers the true class less often than on the holdout: one-sided z test with both standard errors."""
    each = hits(places, probabilities)
    now = float(each.mean())
    statistic = (reference - now) / max(math.hypot(_error(each), reference_error), _LEAST_ERROR)
    return Finding(
        "performance", "accuracy", "drop of accuracy", "accuracy", statistic, _z(level), reference - now, ACCURACY_FLOOR, reference, now
    )


def compare_log_loss(places: Places, probabilities: Floats, reference: float, reference_error: float, level: float) -> Finding | None:
    """Whether the log loss has grown by a fifth: one-sided z test of means. None: there is no loss to grow."""
    if not reference:
        return None
    each = log_losses(places, probabilities)
    now = float(each.mean())
    statistic = (now - reference) / max(math.hypot(_error(each), reference_error), _LEAST_ERROR)
    return Finding(
        "performance", "log_loss", "growth of log loss", "log loss", statistic, _z(level), now / reference - 1, ERROR_FLOOR, reference, now
    )


def compare_frequency(name: str, is_class: npt.NDArray[np.bool_], probabilities: Floats, level: float) -> Finding:
    """Whether a class is as frequent as predicted."""
    found = compare_calibration(is_class.astype(np.float64), probabilities.clip(0, 1), level)
    return replace(found, subject=f"calibration of {name}", what=f"share of {name}, predicted against observed")


def compare_unknown(unknown: Mapping[str, int], rows: int, trained: int, level: float) -> Finding:
    """Outcomes of classes that were not there in training, where their share was 0: a two-proportion z test, one-sided."""
    count = sum(unknown.values())
    share, pooled = count / rows, count / (rows + trained)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / trained))
    statistic = share / spread if spread else 0.0
    most = max(unknown, key=lambda name: (unknown[name], name), default="any class")
    others = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
    return Finding(
        "performance", "unknown classes", "share of unknown classes", f"share of {most}{others}, which was not there in training,", statistic,
        _z(level), share, UNKNOWN_FLOOR, 0.0, share,
    )  # fmt: skip


def _error(each: Floats) -> float:
    return float(each.std()) / math.sqrt(len(each))


def _z(level: float) -> float:
    return float(-ndtri(level))
