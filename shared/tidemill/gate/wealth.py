"""A test that may be looked at after every row: what a bettor owns who bets that the mean of differences is above zero.

The bettor stakes a fixed rate of what there is on each difference, which lies above -1, so 1 unit becomes the product of `1 + rate * difference`.
While the mean is not above zero, given what came before, nobody gets richer on average: the chance that the unit ever becomes 1 / budget
is at most the budget, whenever and however often one looks (Ville's inequality). The unit is split evenly over several rates, so no rate
has to be guessed (a mixture), and the result does not depend on the order of the rows.

Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024); Howard, Ramdas, McAuliffe and
Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of Statistics 49 (2021).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RATES: Floats = np.ldexp(0.75, -np.arange(10)).astype(np.float64)
"""Of the largest possible loss; the last fits effects of a five-hundredth of it."""

_STEPS = 24  # halvings of the interval from -1 to 1: to 1e-7
_PART = 20_000  # rows at once, so that memory stays small


def log_wealth(differences: Floats) -> float:
    """The logarithm of what 1 unit became, betting that the mean is above zero. Differences must not lie below -1; those above 1 count as 1."""
    grown = np.zeros(len(RATES))
    for begin in range(0, len(differences), _PART):
        grown += np.log1p(np.multiply.outer(np.minimum(differences[begin : begin + _PART], 1.0), RATES)).sum(axis=0)
    return mixed(grown)


def wealth_path(differences: Floats) -> Floats:
    """`log_wealth` after each row, for who wants to know what one would have seen at every look."""
    grown = np.cumsum(np.log1p(np.multiply.outer(np.minimum(differences, 1.0), RATES)), axis=0)
    most = grown.max(axis=1, initial=0.0, keepdims=True)
    path: Floats = most[:, 0] + np.log(np.exp(grown - most).mean(axis=1))
    return path


def mixed(grown: Floats) -> float:
    """The logarithm of the mean over the rates, from the logarithms of each."""
    most = float(grown.max())
    return most + math.log(float(np.exp(grown - most).mean()))


def needed(budget: float) -> float:
    """The `log_wealth` that is evidence at a budget."""
    return -math.log(budget)


def bounds(differences: Floats, budget: float) -> tuple[float, float]:
    """The mean lies above the first and below the second, each with a chance of 1 - budget over all looks together. -1 and 1 without rows.

    A bound is above (below) zero if and only if the bettor has shown it at this budget.
    """
    return _lower(differences, budget), -_lower(-differences, budget)


def _lower(differences: Floats, budget: float) -> float:
    """The largest mean that the bettor has shown to be exceeded."""
    low, high = -1.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if log_wealth((differences - middle) / (1 + middle)) >= needed(budget):
            low = middle
        else:
            high = middle
    return low
