"""The bet: what it grows to, that it may be looked at at any time, and its bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.gate import LAWS, decided_at, false_promotions, gains
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tidemill.gate.wealth import RATES, bounds, log_wealth, needed, wealth_path

DIFFERENCES = arrays.arrays(np.float64, st.integers(0, 60), elements=st.floats(-1, 1))


@given(DIFFERENCES)
def test_wealth_is_the_mean_of_products(differences: np.ndarray) -> None:
    """What plain Python multiplies is what the logarithm says, after each row too."""
    products = [math.prod(1 + rate * float(one) for one in differences) for rate in RATES]
    assert log_wealth(differences) == pytest.approx(math.log(sum(products) / len(products)), abs=1e-9)
    if len(differences):
        path = wealth_path(differences)
        assert path[-1] == pytest.approx(log_wealth(differences), abs=1e-9)
        assert path[0] == pytest.approx(log_wealth(differences[:1]), abs=1e-9)


@given(DIFFERENCES, st.randoms())
def test_the_order_of_rows_says_nothing(differences: np.ndarray, shuffle: object) -> None:
    """Rows that come in another order, or in other parts, are the same evidence."""
    again = np.random.default_rng(1).permutation(differences)
    assert log_wealth(again) == pytest.approx(log_wealth(differences), abs=1e-9)


@given(DIFFERENCES, st.sampled_from([0.01, 0.05, 0.2]))
def test_a_bound_says_what_the_bet_says(differences: np.ndarray, budget: float) -> None:
    """The mean is shown to be above zero when the bet won, below when the opposite one did; the mean of the rows lies between."""
    low, high = bounds(differences, budget)
    assert (low > 0) == (log_wealth(differences) >= needed(budget) + 1e-9) or abs(low) < 1e-6
    assert (high < 0) == (log_wealth(-differences) >= needed(budget) + 1e-9) or abs(high) < 1e-6
    assert low - 1e-6 <= (differences.mean() if len(differences) else 0.0) <= high + 1e-6


def test_gains_above_the_bound_only_count_less() -> None:
    """A gain above 1 counts as 1, so that it can never make up for a loss that was not counted."""
    assert log_wealth(np.array([5.0, -0.5])) == log_wealth(np.array([1.0, -0.5]))


def test_many_rows_are_summed_in_parts() -> None:
    """More rows than are taken at once give the same."""
    differences = np.random.default_rng(3).uniform(-0.2, 0.2, 50_000)
    assert log_wealth(differences) == pytest.approx(wealth_path(differences)[-1])


@pytest.mark.slow
@pytest.mark.parametrize("law", ["true half the time", "true 1 % of the time", "a value, heavy tails"])
def test_no_difference_is_seldom_a_promotion(law: str) -> None:
    """Looking after every one of 2,000 outcomes, no more streams end in a promotion than the budget and chance allow."""
    assert false_promotions(law, 300, 2_000) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.slow
def test_rows_of_an_entity_count_once() -> None:
    """Rows that hang together would break the budget, which shows that this test can fail; counted once they keep it."""
    assert false_promotions("ten rows an entity", 150, 4_000) > 0.2
    assert false_promotions("ten rows an entity", 150, 4_000, once=True) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)


@pytest.mark.slow
def test_a_better_challenger_is_found() -> None:
    """One that is half as noisy is promoted in each of twenty streams, and its opposite in none."""
    draw = np.random.default_rng(4)
    streams = [gains("true half the time", draw, 4_000, 0.5) for _ in range(20)]
    assert all(decided_at(stream, 0.05, 200) is not None for stream in streams)
    assert all(decided_at(-stream, 0.05, 200) is None for stream in streams)


def test_laws_are_known() -> None:
    """Both err alike where the factor is 1: over many rows they lose the same."""
    for name in LAWS:
        mean = gains(name, np.random.default_rng(5), 100_000, 1.0)
        assert abs(mean.mean()) < 5 * mean.std() / math.sqrt(100_000 / 10)
