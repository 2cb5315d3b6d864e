"""Losses and scores of probabilities of several classes, one row for each example. A class is its place among the columns; -1 is one that has none."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tidemill.stats.roc import auc_with_error

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_LEAST = 1e-7


def log_losses(places: Places, probabilities: Floats) -> Floats:
    """Minus the logarithm of what the true class got, at least 1e-7: a class without a column got nothing."""
    got = np.where(places >= 0, probabilities[np.arange(len(places)), places], 0.0)
    losses: Floats = -np.log(np.clip(got, _LEAST, 1.0))
    return losses


def brier_losses(places: Places, probabilities: Floats) -> Floats:
    """The sum of the squared differences over the classes, from 0 to 2."""
    wanted = (places[:, None] == np.arange(probabilities.shape[1])).astype(np.float64)
    losses: Floats = ((wanted - probabilities) ** 2).sum(axis=1) + (places < 0)
    return losses


def hits(places: Places, probabilities: Floats) -> Floats:
    """1 where the class with the largest probability, the first of several, is the true one, else 0."""
    found: Floats = (probabilities.argmax(axis=1) == places).astype(np.float64)
    return found


def auc_one_vs_rest(places: Places, probabilities: Floats) -> float:
    """The mean over the classes of the area under the ROC curve of one class against the others; NaN when no class occurs twice, and the others twice."""
    each = [auc_with_error((places == place).astype(np.float64), probabilities[:, place])[0] for place in range(probabilities.shape[1])]
    known = [auc for auc in each if not math.isnan(auc)]
    return float(np.mean(known)) if known else math.nan


def scores(places: Places, probabilities: Floats) -> dict[str, float]:
    """accuracy and log_loss, each with the standard error of its mean, brier, and auc_ovr if there is one."""
    found = dict[str, float]()
    for name, each in (("accuracy", hits(places, probabilities)), ("log_loss", log_losses(places, probabilities))):
        found |= {name: float(each.mean()), f"{name}_error": float(each.std() / math.sqrt(len(each)))}
    auc = auc_one_vs_rest(places, probabilities)
    return found | {"brier": float(brier_losses(places, probabilities).mean())} | ({} if math.isnan(auc) else {"auc_ovr": auc})
