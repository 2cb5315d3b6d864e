"""The answer of a model: one number, or the probability of each of several classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class ModelAnswer(NamedTuple):
    """`output`: the probability of the true class, the value, or, of several classes, the largest of their `probabilities`."""

    output: float
    probabilities: Mapping[str, float] = {}

    @property
    def is_finite(self) -> bool:
        """Whether all of it is finite numbers."""
        return math.isfinite(self.output) and all(map(math.isfinite, self.probabilities.values()))


def answer_of(classes: Sequence[str], probabilities: Sequence[float]) -> ModelAnswer:
    """The answer of a model of several classes; NaN where a probability is NaN."""
    output = max(probabilities) if all(map(math.isfinite, probabilities)) else math.nan
    return ModelAnswer(output, dict(zip(classes, probabilities, strict=True)))


def chosen(probabilities: Mapping[str, float]) -> str:
    """The class that is answered: the first of those with the largest probability."""
    return max(probabilities, key=probabilities.__getitem__)
