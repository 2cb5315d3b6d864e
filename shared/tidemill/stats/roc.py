"""Area under the ROC curve with its standard error, by DeLong, DeLong and Clarke-Pearson (1988)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def auc_with_error(labels: npt.NDArray[np.floating], scores: npt.NDArray[np.floating]) -> tuple[float, float]:
    """AUC (ties count half) and its standard error; NaN for both unless each class occurs twice.

    V10 are the placements of the m positives among the negatives, V01 those of the n negatives among the positives. The variance is
    var(V10) / m + var(V01) / n.
    """
    positives, negatives = np.sort(scores[labels > 0.5]), np.sort(scores[labels <= 0.5])
    if len(positives) < 2 or len(negatives) < 2:
        return math.nan, math.nan
    above = _placements(positives, negatives)
    below = 1 - _placements(negatives, positives)
    variance = above.var(ddof=1) / len(positives) + below.var(ddof=1) / len(negatives)
    return float(above.mean()), math.sqrt(variance)


def _placements(values: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """For each value, the share of the sorted `others` below it; ties count half."""
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2.0 * len(others))
