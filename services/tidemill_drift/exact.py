"""Chances that hold for any number of rows, as scores: a score of z is as unlikely as z or more of a standard normal number.

The chi-square and the normal distribution are limits for many rows. Of few rows these chances are computed by counting; where that is not
possible, Student's distribution is used, whose tails are as heavy as few rows make them.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln, ndtri, pdtr, pdtrc, stdtr

_LEAST = 1e-300
MOST_SCORE = float(-ndtri(_LEAST))
"""The largest score: all numbers of an alert are finite."""


def score_of(chance: float) -> float:
    """The score of a chance."""
    return float(-ndtri(min(max(chance, _LEAST), 1.0 - 1e-16)))


def chance_of_more(before: int, rows: int, now: int, now_rows: int) -> float:
    """The chance of at least `now` of `now_rows` when those that have it are spread over all rows at random (Fisher's exact test).

    `before` of `rows` have it in the other sample.
    """
    return _tail(now, min(before + now, now_rows), before + now, rows + now_rows, now_rows)


def chance_of_other(before: int, rows: int, now: int, now_rows: int) -> float:
    """The chance of as many or more, or of as few or fewer, whichever is less likely, for both sides."""
    having, both = before + now, rows + now_rows
    if now * both < having * now_rows:
        return min(1.0, 2 * _tail(max(0, having - rows), now, having, both, now_rows))
    return min(1.0, 2 * _tail(now, min(having, now_rows), having, both, now_rows))


def _tail(first: int, last: int, having: int, both: int, drawn: int) -> float:
    """The chance of a number from `first` to `last` of those that have it, among so many that are drawn."""
    counts = np.arange(first, last + 1, dtype=np.float64)
    return min(1.0, float(np.exp(_choose(having, counts) + _choose(both - having, drawn - counts) - _choose(both, drawn)).sum()))


def chance_of_count(count: int, expected: float, *, more: bool) -> float:
    """The chance of a count or more (or: or fewer) of rare things of which so many are expected (Poisson)."""
    if more:
        return float(pdtrc(count - 1, expected)) if count else 1.0
    return float(pdtr(count, expected))


def chance_of_part(count: int, both: int, share: float, *, more: bool) -> float:
    """The chance that of `both` things `count` or more (or: or fewer) fall on the side that gets each with the chance `share`."""
    counts = np.arange(count, both + 1) if more else np.arange(count + 1)
    if not 0 < share < 1:
        return 1.0
    logs = _choose(both, counts.astype(np.float64)) + counts * math.log(share) + (both - counts) * math.log1p(-share)
    return min(1.0, float(np.exp(logs).sum()))


def chance_of_mean(difference: float, first: tuple[float, float], second: tuple[float, float]) -> float:
    """The chance that a mean lies so far above another by chance. `first`, `second`: the variance of each mean, and its degrees of freedom
    (Welch's test)."""
    (one, one_free), (two, two_free) = first, second
    spread = one + two
    if spread <= 0:
        return 0.5
    free = spread**2 / (one**2 / max(one_free, 1) + two**2 / max(two_free, 1))
    return float(stdtr(free, -difference / math.sqrt(spread)))


def _choose(all_of_them: float, taken: np.ndarray | float) -> np.ndarray:
    """The logarithm of the number of ways to take some."""
    left: np.ndarray = gammaln(all_of_them + 1.0) - gammaln(taken + 1.0) - gammaln(all_of_them - taken + 1.0)
    return left
