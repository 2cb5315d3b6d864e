"""How far the probabilities of a model are from how often the outcome came, on rows that it was not fitted on."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt


class Calibrated(msgspec.Struct, frozen=True):
    """Of some rows: the mean probability, the share of the outcome, the standard deviation of outcome less probability, and how many they are.

    The probabilities of a model with balanced class weights are off by design; so what counts later is whether they are off by as much.
    """

    predicted: float
    observed: float
    deviation: float
    rows: int

    @property
    def difference(self) -> float:
        """Observed less predicted."""
        return self.observed - self.predicted

    @property
    def rarer(self) -> int:
        """How often the rarer of the two outcomes came."""
        return round(min(self.observed, 1 - self.observed) * self.rows)


def calibrated(labels: npt.NDArray[np.floating], scores: npt.NDArray[np.floating]) -> Calibrated:
    """The calibration of one row or more. `labels`: 1 where the outcome came, else 0."""
    scores = np.asarray(scores, np.float64)
    away = labels - scores
    return Calibrated(float(scores.mean()), float(labels.mean()), float(away.std()), len(scores))
