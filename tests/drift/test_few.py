"""Measured where there is little to judge by: the budget holds over all models, and what has clearly changed is found."""

from __future__ import annotations

import math

import pytest
from benchmarks.drift import BUDGET
from benchmarks.drift_few import CHANGES, FEW_LAWS, inputs_told, outcomes_told


def allowed(windows: int) -> float:
    """The budget and three standard errors of a share of so many windows."""
    return BUDGET + 3 * math.sqrt(BUDGET * (1 - BUDGET) / windows)


@pytest.mark.slow
@pytest.mark.parametrize("law", FEW_LAWS)
def test_small_windows_of_three_models_stay_silent(law: str) -> None:
    """Of three models of fifty inputs of which 75 rows were held out, windows of 375 stationary rows raise no more than the budget; 75 rows wait."""
    windows = 2 if "texts" in law else 10
    assert inputs_told(law, 75, 375, windows) <= allowed(windows)
    assert math.isnan(inputs_told(law, 75, 75, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("held", "rows", "positives"), [(75, 375, 2), (75, 375, 20), (2000, 2000, 2), (300, 2000, 200)])
def test_few_outcomes_stay_silent(held: int, rows: int, positives: int) -> None:
    """Scores that are off by design, rare outcomes and small holdouts raise no more than the budget."""
    assert outcomes_told("none", held, rows, positives, 100, models=3) <= allowed(100)


@pytest.mark.slow
def test_what_has_changed_is_found() -> None:
    """A shift of a deviation in 375 rows, three times as many outcomes, and scores that say nothing any more."""
    assert inputs_told("normal", 300, 375, 10, shift=1.0) == 1
    for change in set(CHANGES) - {"none"}:
        assert outcomes_told(change, 2000, 2000, 200, 10) == 1
