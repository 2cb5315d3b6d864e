"""The comparisons: one window against the reference. Each finding needs both evidence and a real size of change.

Evidence alone would make everything drift once there is enough data, size alone once there is too little. Evidence is a test whose level
is shared by all comparisons of a window, of all versions of all models: with a budget of 0.01, one stationary window in a hundred raises any
alert, whatever the number of inputs, models and rows. Size is a floor in the unit a person compares. All numbers of a finding are finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri

from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.stats.histograms import Histogram
from tidemill_drift.exact import chance_of_more, chance_of_other, score_of

Kind = Literal["feature_drift", "prediction_drift", "performance", "data_quality"]
Floats = npt.NDArray[np.float64]

LEAST_EXPECTED, ENOUGH_EXPECTED = 5.0, 20.0
PSI_FLOOR = 0.2
MISSING_FLOOR = 0.1
MISSING, MISSING_OR_UNSEEN = "share missing", "share missing or never seen in training"
HELD_OUT, TRAINING = "training's held-out rows", "training"
_NEW_TEXTS = "texts that were not there in training"
_NAMED = 3


class Share(NamedTuple):
    """So many of so many rows."""

    having: int
    rows: int


@dataclass(frozen=True)
class Finding:
    """One comparison. `drifted` when `statistic` exceeds `threshold` (evidence) and `effect` exceeds `floor` (size).

    `what` says in words what `reference` and `current` are, `of`: of which rows `reference` is, `told`: more about the window, for a person.
    """

    kind: Kind
    subject: str
    test: str
    what: str
    statistic: float
    threshold: float
    effect: float
    floor: float
    reference: float
    current: float
    of: str = HELD_OUT
    told: str = ""

    @property
    def drifted(self) -> bool:
        """Whether both evidence and size say so."""
        return self.statistic > self.threshold and self.effect > self.floor

    @property
    def calm(self) -> bool:
        """Whether the size is below half its floor, or below it without evidence of any change; in between it may come and go."""
        return self.effect < (self.floor / 2 if self.statistic > self.threshold else self.floor)


def compare_distribution(
    kind: Kind, subject: str, reference: Histogram, current: Histogram, level: float, categories: Sequence[str] = ()
) -> Finding | None:
    """Whether two samples have one distribution (NaN left out), with the population stability index without its bias as size. None: too few
    values.

    Neighbouring bins of a number are joined, and rare texts of a category, until the smaller sample expects five values in each. The test is the
    two-sample chi-square where it expects twenty; otherwise each bin, and of numbers each cut between bins, is tested by counting, and the
    least of these chances is multiplied by how many they are.
    For samples of n and m values from one law PSI is (bins - 1) (1/n + 1/m) on average, which is taken off. `reference` and `current` of the
    finding are shares of the bin that adds most to PSI.
    """
    before, now = (np.array(histogram.counts, dtype=float) for histogram in (reference, current))
    if categories and not isinstance(current.unseen, msgspec.UnsetType):
        now[-1] += current.unseen
    groups = _common(before, now) if categories else _neighbours(before, now)
    a, b = (np.array([counts[group].sum() for group in groups]) for counts in (before, now))
    n, m = a.sum(), b.sum()
    if len(groups) < 2 or not n or not m:
        return None
    p, q = (a + 0.5) / (n + 0.5 * len(a)), (b + 0.5) / (m + 0.5 * len(b))
    parts = (q - p) * np.log(q / p)
    psi = float(parts.sum() - (len(a) - 1) * (1 / n + 1 / m))
    most = int(parts.argmax())
    places = groups[most]
    what = f"share of {_texts(reference.edges, places, categories) if categories else _range(reference.edges, places[0], places[-1] + 1)}"
    test, statistic, threshold = _evidence(a, b, level, ordered=not categories)
    return Finding(kind, subject, f"{test} and PSI", what, statistic, threshold, psi, PSI_FLOOR, float(a[most] / n), float(b[most] / m))


def _evidence(a: Floats, b: Floats, level: float, *, ordered: bool) -> tuple[str, float, float]:
    """The name of the test, its statistic, and the threshold."""
    n, m = a.sum(), b.sum()
    if (a + b).min() * min(n, m) / (n + m) >= ENOUGH_EXPECTED:
        statistic = float(((math.sqrt(m / n) * a - math.sqrt(n / m) * b) ** 2 / (a + b)).sum())
        return "chi-square", statistic, float(chdtri(len(a) - 1, level))
    pairs = {(x, y) for x, y in zip(a, b, strict=True)}
    if ordered:
        pairs |= {(x, y) for x, y in zip(a.cumsum()[:-1], b.cumsum()[:-1], strict=True)}
    tests = 2 * len(a) - 1 if ordered else len(a)
    least = min(chance_of_other(int(x), int(n), int(y), int(m)) for x, y in pairs)
    return "exact counts", score_of(tests * least), threshold_of(level)


def _neighbours(a: Floats, b: Floats) -> list[range]:
    """Joins neighbouring bins until the smaller sample expects at least five values in each; two parts are left where each sample has five values, and two bins have any."""
    share = min(a.sum(), b.sum()) / max(a.sum() + b.sum(), 1.0)
    ends: list[int] = []
    weight = 0.0
    for i, both in enumerate(a + b, start=1):
        weight += both
        if weight * share >= LEAST_EXPECTED:
            ends.append(i)
            weight = 0.0
    ends[-1:] = [len(a)]  # what is left over goes to the last one
    before = (a + b).cumsum()[:-1]
    parts = np.minimum(before, (a + b).sum() - before)  # the smaller of the two that each cut makes
    if (
        len(ends) == 1 and parts.any() and min(a.sum(), b.sum()) >= LEAST_EXPECTED
    ):  # nearly all of the larger sample lies in one place: counting tells even so
        ends = [int(parts.argmax()) + 1, len(a)]
    return [range(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _common(a: Floats, b: Floats) -> list[list[int]]:
    """The bins of which the smaller sample expects at least five values, each by itself, and all others together, with the last one: of texts
    that were not there in training. Where these are too few, they go with the rarest of at least two.

    Which they are depends on the sum of both samples alone, so the choice favours neither. A text that was new among the held-out rows is known
    now, and rare in both.
    """
    both = a + b
    share = min(a.sum(), b.sum()) / max(both.sum(), 1.0)
    often = (both * share >= LEAST_EXPECTED) & (np.arange(len(both)) < len(both) - 1)
    common, rare = [[int(i)] for i in np.flatnonzero(often)], np.flatnonzero(~often).tolist()
    if len(common) > 1 and both[rare].sum() * share < LEAST_EXPECTED:
        least = min(range(len(common)), key=lambda i: both[common[i][0]])
        common[least] = [*common[least], *(i for i in rare if both[i])]
        return common
    return [*common, [i for i in rare if both[i]]] if both[rare].any() else common


def _texts(edges: Sequence[float], places: Sequence[int], categories: Sequence[str]) -> str:
    """Bins of a category in words."""
    numbers = [int(edges[i - 1]) for i in places if 0 < i < len(edges)]
    texts = [categories[number] for number in numbers if number < len(categories) and categories[number] != UNKNOWN_TEXT]
    if len(texts) == len(places) and len(texts) <= _NAMED:
        return " and ".join(texts)
    return f"{texts[0]} and rarer texts" if 0 < len(texts) <= _NAMED else "rare texts" if texts else _NEW_TEXTS


def _range(edges: Sequence[float], start: int, end: int) -> str:
    """The bins from `start` to before `end` in words."""
    low, high = (f"{edges[i]:.4g}" if 0 <= i < len(edges) else "" for i in (start - 1, end - 1))
    if low == high:
        return f"value {low}"
    return f"values from {low} to {high}" if low and high else f"values of {low} or more" if low else f"values below {high}"


def compare_missing(subject: str, reference: Share, current: Share, level: float, *, test: str = MISSING) -> Finding | None:
    """Whether more values are missing (or `test`) than in training, by counting. None: no rows."""
    if not reference.rows or not current.rows:
        return None
    before, now = reference.having / reference.rows, current.having / current.rows
    statistic = score_of(chance_of_more(*reference, *current))
    return Finding("data_quality", subject, test, test, statistic, threshold_of(level), now - before, MISSING_FLOOR, before, now)


def threshold_of(level: float) -> float:
    """The score that a comparison must exceed at a level."""
    return float(-ndtri(level))
