"""Rulers: every value has a bin, heavy values have their own, and what training never saw can be told from what it saw."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.stats.histograms import Histogram, count, reference

VALUES = st.lists(st.one_of(st.floats(width=32), st.sampled_from([0.0, 1.0, 2.0])), max_size=80)


@given(VALUES, st.booleans())
def test_counts_match_a_loop(values: list[float], category: bool) -> None:
    """Each value is counted in the one bin whose edges enclose it; NaN is missing; the sum is all rows."""
    found = reference(np.array(values), category=category)
    assert sorted(set(found.edges)) == found.edges
    assert np.isfinite(found.edges).all()
    bounds = [-np.inf, *found.edges, np.inf]
    naive = [sum(low <= v < high or v == high == np.inf for v in values if not np.isnan(v)) for low, high in pairwise(bounds)]
    assert found.counts == naive
    assert (found.missing, found.rows) == (sum(map(np.isnan, values)), len(values))


@given(VALUES)
def test_a_ruler_survives_json(values: list[float]) -> None:
    """A manifest read back counts the very same."""
    found = reference(np.array(values))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Histogram) == found == count(found.edges, np.array(values))


def test_tenths_of_a_continuous_column() -> None:
    """Ten bins of a tenth each."""
    values = np.random.default_rng(1).lognormal(size=5000)
    assert reference(values).counts == pytest.approx([500] * 10, abs=1)


@pytest.mark.parametrize("heavy", [0.0, 0.5, 1.0], ids=["lowest", "middle", "highest"])
def test_a_heavy_value_has_its_own_bin(heavy: float) -> None:
    """Rain is zero nearly always: the rest must not vanish in the bin of the zero."""
    values = np.where(np.random.default_rng(2).random(2000) < 0.95, heavy, np.random.default_rng(3).random(2000))
    found = reference(values)
    place = int(np.searchsorted(found.edges, heavy, side="right"))
    assert found.counts[place] == (values == heavy).sum()
    assert len(found.counts) >= 2


def test_a_constant_can_be_left() -> None:
    """A column that was constant in training has bins for what lies below and above it."""
    found = reference(np.full(300, 5.0, dtype=np.float32))
    assert found.counts == [0, 300, 0]
    assert count(found.edges, np.array([4.0, np.nextafter(np.float32(5), np.float32(9)), 5.0])).counts == [1, 1, 1]


def test_categories_have_a_bin_each_however_many() -> None:
    """A category is never joined with another because of its number."""
    found = reference(np.repeat(np.arange(60.0), 3), category=True)
    assert found.counts == [0, *[3] * 60, 0]


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [np.inf, -np.inf]])
def test_nothing_to_measure(values: list[float]) -> None:
    """Without a finite value there is one bin and no edge."""
    found = reference(np.array(values))
    assert (found.edges, len(found.counts), found.rows) == ([], 1, len(values))
