"""The comparisons of answers with outcomes. Each figure is compared with the same figure of the rows that were held out in training.

The held-out rows are a sample too, and may be a small one: its error counts as the window's does. Of few outcomes neither sample knows its own
spread; so the larger of the two spreads, and of what is known beforehand, is taken for both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tidemill.stats.calibration import Calibrated, calibrated
from tidemill.stats.roc import auc_with_error
from tidemill_drift.compare import HELD_OUT, Finding, Floats, threshold_of
from tidemill_drift.exact import MOST_SCORE, chance_of_count, chance_of_mean, chance_of_more, chance_of_part, score_of

AUC_FLOOR = 0.02
CALIBRATION_FLOOR = 0.03
ERROR_FLOOR = 0.2
LEAST_EACH = 10
"""An AUC is judged once each of the two outcomes came so often."""
_MANY = 100  # of so many outcomes the normal distribution is right enough
_UNKNOWN = 1e9  # degrees of freedom of a reference of which only the error is known


class HeldMean(NamedTuple):
    """The mean of a figure on held-out rows, its standard error, and how many rows they were (0: not known)."""

    value: float
    error: float
    rows: int


class HeldAuc(NamedTuple):
    """The AUC of held-out rows, its standard error, and how often each outcome came (0: not known)."""

    auc: float
    error: float
    positives: int = 0
    negatives: int = 0


def compare_auc(labels: Floats, scores: Floats, held: HeldAuc, level: float) -> Finding | None:
    """Whether the model ranks worse than on the holdout, one-sided. None: an outcome came less than LEAST_EACH times."""
    positives = int((labels > 0.5).sum())
    negatives = len(labels) - positives
    auc, error = auc_with_error(labels, scores)
    if min(positives, negatives) < LEAST_EACH:
        return None
    drop = held.auc - auc
    either = held.auc, auc
    now = max(error**2, *(_ranking_variance(one, positives, negatives) for one in either))
    before, free = held.error**2, _UNKNOWN
    if min(held.positives, held.negatives) > 0:
        before = max(before, *(_ranking_variance(one, held.positives, held.negatives) for one in either))
        free = min(held.positives, held.negatives) - 1
    chance = chance_of_mean(drop, (now, min(positives, negatives) - 1), (before, free))
    return Finding(
        "performance", "auc", "drop of AUC (DeLong)", "AUC", score_of(chance), threshold_of(level), drop, AUC_FLOOR, held.auc, auc
    )


def _ranking_variance(auc: float, positives: int, negatives: int) -> float:
    """The variance of an AUC by Hanley and McNeil (1982). One that is certain counts as if half a pair were ranked wrong."""
    auc = (auc * positives * negatives + 0.5) / (positives * negatives + 1)
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    both = auc * (1 - auc) + (positives - 1) * (first - auc**2) + (negatives - 1) * (second - auc**2)
    return max(both, 0.0) / (positives * negatives)


def compare_calibration(labels: Floats, scores: Floats, held: Calibrated | None, level: float) -> Finding:
    """Whether outcomes are as often more, or less, frequent than predicted as on the holdout, two-sided.

    Of fewer than a hundred of the rarer outcome the counts themselves must be unlikely too. `held` is None for a version that does not say how
    its holdout was: then outcomes should be as frequent as predicted.
    """
    now = calibrated(labels, scores)
    off = 0.0 if held is None else held.difference
    away = now.difference - off
    chance = _chance_of_away(now, held, scores, away)
    expected = min(max(now.predicted + off, 0.0), 1.0)
    floor = min(CALIBRATION_FLOOR, max(min(expected, 1 - expected), 1 / now.rows) / 2)
    return Finding(
        "performance", "calibration", "observed against predicted rate", "observed less predicted rate", score_of(chance),
        threshold_of(level / 2), abs(away), floor, off, now.difference,
        of="training, as far as it is known" if held is None else HELD_OUT,
        told=f": predicted {now.predicted:.3g}, observed {now.observed:.3g}",
    )  # fmt: skip


def _chance_of_away(now: Calibrated, held: Calibrated | None, scores: Floats, away: float) -> float:
    count = round(now.observed * now.rows)
    few = min(now.rarer, held.rarer if held else _MANY) < _MANY
    if held is None:
        spread = math.sqrt(max(float((scores * (1 - scores)).sum()), 1.0))
        chance = chance_of_mean(abs(away) * now.rows, (spread**2, _UNKNOWN), (0.0, 1))
        return max(chance, chance_of_count(*_rarer(count, now), more=(away > 0) == _is_rarer(now))) if few else chance
    variance = max(now.deviation, held.deviation) ** 2
    chance = chance_of_mean(abs(away), (variance / now.rows, now.rows - 1), (variance / held.rows, held.rows - 1))
    return max(chance, _chance_of_counts(now, held, more=away > 0)) if few else chance


def _chance_of_counts(now: Calibrated, held: Calibrated, *, more: bool) -> float:
    """The chance of the window's share of the rarer outcome of both samples, given what was predicted of it in each."""
    rare = _is_rarer(now)
    counts = [round((one.observed if rare else 1 - one.observed) * one.rows) for one in (now, held)]
    expected = [max((one.predicted if rare else 1 - one.predicted) * one.rows, 1e-9) for one in (now, held)]
    return chance_of_part(counts[0], sum(counts), expected[0] / sum(expected), more=more == rare)


def _is_rarer(now: Calibrated) -> bool:
    return min(now.observed, now.predicted) <= 1 - max(now.observed, now.predicted)


def _rarer(count: int, now: Calibrated) -> tuple[int, float]:
    """How often the rarer outcome came, and how often it was predicted to."""
    return (count, now.predicted * now.rows) if _is_rarer(now) else (now.rows - count, (1 - now.predicted) * now.rows)


def compare_growth(subject: str, test: str, each: Floats, held: HeldMean, level: float) -> Finding | None:
    """Whether the mean of an error or of a loss has grown by a fifth, one-sided. None: no reference, or fewer than two rows."""
    if len(each) < 2 or not held.value:
        return None
    now, variance = float(each.mean()), float(each.var(ddof=1))
    before, free = (max(held.error**2, variance / held.rows), held.rows - 1) if held.rows else (held.error**2, _UNKNOWN)
    variance = max(variance, held.error**2 * held.rows)
    chance = chance_of_mean(now - held.value, (variance / len(each), len(each) - 1), (before, free))
    return Finding(
        "performance", subject, f"growth of {test}", test, score_of(chance), threshold_of(level), now / held.value - 1, ERROR_FLOOR,
        held.value, now,
    )  # fmt: skip


def score_of_fewer(held: HeldMean, hits: int, rows: int) -> float:
    """The score of so few hits: by counting when the held-out rows are known, else by the two standard errors."""
    if held.rows:
        return score_of(chance_of_more(round((1 - held.value) * held.rows), held.rows, rows - hits, rows))
    share = hits / rows
    spread = math.hypot(math.sqrt(share * (1 - share) / rows), held.error)
    return min((held.value - share) / spread, MOST_SCORE) if spread else 0.0
