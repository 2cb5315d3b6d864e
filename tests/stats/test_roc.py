"""AUC and its error against a naive count, scikit-learn and the bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tidemill.stats.roc import auc_with_error

PAIRS = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=4, max_size=60)


@given(PAIRS)
def test_auc_equals_the_count_of_pairs(pairs: list[tuple[bool, int]]) -> None:
    """The share of pairs ranked right, ties half; NaN without two of each class."""
    labels, scores = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    auc, error = auc_with_error(labels, scores)
    positives, negatives = scores[labels == 1], scores[labels == 0]
    if min(len(positives), len(negatives)) < 2:
        assert math.isnan(auc)
        assert math.isnan(error)
        return
    assert auc == pytest.approx(np.mean([(p > n) + (p == n) / 2 for p in positives for n in negatives]))
    assert auc == pytest.approx(roc_auc_score(labels, scores))
    assert 0 <= error < 1


def test_error_agrees_with_the_bootstrap() -> None:
    """DeLong's error is that of resampling, within the bootstrap's own error."""
    random = np.random.default_rng(7)
    labels = (random.random(600) < 0.25).astype(float)
    scores = labels * 0.8 + random.normal(size=600)
    error = auc_with_error(labels, scores)[1]
    draws = [roc_auc_score(labels[i], scores[i]) for i in random.integers(0, 600, (300, 600))]
    assert error == pytest.approx(np.std(draws), rel=0.15)


def test_perfect_ranking_has_no_error() -> None:
    """All right: AUC 1 and error 0, not NaN."""
    assert auc_with_error(np.array([0, 0, 1, 1]), np.array([1, 2, 3, 4])) == (1.0, 0.0)
