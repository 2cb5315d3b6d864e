"""The comparisons of a model of several classes: how often it is right, what its probabilities are worth, and classes that it never saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tidemill.stats.calibration import Calibrated
from tidemill.stats.several import Places, hits, log_losses
from tidemill_drift.compare import TRAINING, Finding, Floats, threshold_of
from tidemill_drift.exact import chance_of_more, score_of
from tidemill_drift.performance import HeldMean, compare_calibration, compare_growth, score_of_fewer

ACCURACY_FLOOR = 0.05
UNKNOWN_FLOOR = 0.01


def compare_accuracy(places: Places, probabilities: Floats, held: HeldMean, level: float) -> Finding:
    """Whether the model answers the true class less often than on the holdout, one-sided."""
    right = int(hits(places, probabilities).sum())
    now = right / len(places)
    statistic = score_of_fewer(held, right, len(places))
    return Finding(
        "performance",
        "accuracy",
        "drop of accuracy",
        "accuracy",
        statistic,
        threshold_of(level),
        held.value - now,
        ACCURACY_FLOOR,
        held.value,
        now,
    )


def compare_log_loss(places: Places, probabilities: Floats, held: HeldMean, level: float) -> Finding | None:
    """Whether the log loss has grown by a fifth, one-sided. None: there is no loss to grow."""
    return compare_growth("log_loss", "log loss", log_losses(places, probabilities), held, level)


def compare_frequency(name: str, is_class: npt.NDArray[np.bool_], probabilities: Floats, held: Calibrated | None, level: float) -> Finding:
    """Whether a class is as often more, or less, frequent than predicted as on the holdout."""
    found = compare_calibration(is_class.astype(np.float64), probabilities.clip(0, 1), held, level)
    return replace(found, subject=f"calibration of {name}", what=f"observed less predicted share of {name}")


def compare_unknown(unknown: Mapping[str, int], rows: int, trained: int, level: float) -> Finding:
    """Outcomes of classes that were not there in training, where their share was 0, by counting."""
    count = sum(unknown.values())
    share = count / rows
    most = max(unknown, key=lambda name: (unknown[name], name), default="any class")
    others = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
    return Finding(
        "performance", "unknown classes", "share of unknown classes", f"share of {most}{others}, which was not there in training,",
        score_of(chance_of_more(0, trained, count, rows)), threshold_of(level), share, UNKNOWN_FLOOR, 0.0, share, of=TRAINING,
    )  # fmt: skip
