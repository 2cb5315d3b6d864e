"""What an answer loses once its outcome is known, from 0 to 1, since a test that may be looked at at any time needs a bound.

The Brier score is bounded by itself, so it is what classes are judged by unless another is asked for. Of log loss the probability is clipped,
and errors of values are, at a stated size: the test is then about the clipped loss, which no single row can decide.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tidemill.retrainings import LossName
from tidemill.stats.several import Places, brier_losses, log_losses

Floats = npt.NDArray[np.float64]

LEAST_PROBABILITY = 1e-4
_MOST_LOG = -math.log(LEAST_PROBABILITY)


def of_probabilities(name: LossName, outcomes: Floats, outputs: Floats) -> Floats:
    """Of the probability of the true class, which an outcome above 0 is. An output that is NaN loses everything."""
    true, given = (outcomes > 0).astype(np.float64), np.clip(outputs, 0.0, 1.0)
    if name == "log_loss":
        got = np.where(true > 0, given, 1 - given)
        return _worst(-np.log(np.clip(got, LEAST_PROBABILITY, 1.0)) / _MOST_LOG)
    return _worst((given - true) ** 2)


def of_classes(name: LossName, places: Places, probabilities: Floats) -> Floats:
    """Of the probabilities of several classes; `places` as in `stats.several`."""
    if name == "log_loss":
        return _worst(np.minimum(log_losses(places, probabilities), _MOST_LOG) / _MOST_LOG)
    return _worst(brier_losses(places, probabilities) / 2)


def of_values(name: LossName, outcomes: Floats, outputs: Floats, most: float) -> Floats:
    """Of a value: errors above `most` count as that."""
    errors = np.minimum(np.abs(outputs - outcomes), most) / most
    return _worst(errors**2 if name == "squared" else errors)


def _worst(losses: Floats) -> Floats:
    found: Floats = np.clip(np.where(np.isnan(losses), 1.0, losses), 0.0, 1.0)
    return found
