"""Scores of several classes beside scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from tidemill.stats.several import auc_one_vs_rest, brier_losses, hits, log_losses, scores


@pytest.mark.slow
@given(st.integers(2, 6), st.integers(20, 80), st.integers(0, 10_000))
def test_scores_are_those_of_scikit_learn(classes: int, rows: int, seed: int) -> None:
    """Of random probabilities, where each class occurs twice."""
    draw = np.random.default_rng(seed)
    places = np.concatenate([np.arange(classes), np.arange(classes), draw.integers(0, classes, rows)])
    given_ = draw.dirichlet(np.ones(classes), len(places))
    found = scores(places, given_)
    assert found["accuracy"] == pytest.approx(accuracy_score(places, given_.argmax(axis=1)))
    assert found["log_loss"] == pytest.approx(log_loss(places, np.clip(given_, 1e-7, 1), labels=range(classes)), rel=1e-5)
    each = [roc_auc_score(places == place, given_[:, place]) for place in range(classes)]
    assert found["auc_ovr"] == pytest.approx(np.mean(each))
    if classes > 2:
        assert found["auc_ovr"] == pytest.approx(roc_auc_score(places, given_, multi_class="ovr", average="macro"))
    one_hot = np.eye(classes)[places]
    assert found["brier"] == pytest.approx(((one_hot - given_) ** 2).sum(axis=1).mean())
    losses = log_losses(places, given_)
    assert found["log_loss_error"] == pytest.approx(losses.std() / math.sqrt(len(losses)))


def test_a_class_that_is_no_column() -> None:
    """It got no probability, so its loss is the largest, and no answer was right."""
    places, given_ = np.array([-1, 1]), np.array([[0.25, 0.75], [0.5, 0.5]])
    assert log_losses(places, given_).tolist() == pytest.approx([-math.log(1e-7), math.log(2)])
    assert hits(places, given_).tolist() == [0.0, 0.0]  # of a tie the first is answered
    assert brier_losses(places, given_).tolist() == pytest.approx([1 + 0.25**2 + 0.75**2, 0.5])


def test_no_area_without_two_of_a_class() -> None:
    """Then there is none among the scores, which are written as JSON."""
    places, given_ = np.array([0, 1, 2]), np.eye(3)
    assert math.isnan(auc_one_vs_rest(places, given_))
    assert "auc_ovr" not in scores(places, given_)
