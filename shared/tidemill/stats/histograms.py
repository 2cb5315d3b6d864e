"""Histograms with a fixed ruler: made once from the training rows, kept in the manifest, and counted again on live traffic."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

_BINS = 10
_MOST_VALUES = 25


class Histogram(msgspec.Struct, frozen=True):
    """A distribution in training: `counts[i]` values in [edges[i-1], edges[i]), open at both ends, so one count more than edges.

    A category is binned by its number. `missing` counts NaN; `rows` all.
    """

    edges: list[float]
    counts: list[int]
    missing: int
    rows: int


def reference(values: npt.NDArray[np.floating], *, category: bool = False) -> Histogram:
    """A histogram with a ruler that fits the values.

    A category, and what has at most 25 distinct values: one bin a value, and one on either side for what training never saw. Else tenths by
    quantile, where a value that holds a tenth or more (the zero of rain) has a bin of its own. Infinite values make no edge.
    """
    present = np.asarray(values, dtype=np.float64)
    distinct, counts = np.unique(present[np.isfinite(present)], return_counts=True)
    if category or len(distinct) <= _MOST_VALUES:
        edges = np.append(distinct, np.nextafter(distinct[-1:], np.inf))
    else:
        total = counts.sum()
        tenths = np.searchsorted(np.cumsum(counts), np.arange(1, _BINS) * total / _BINS)
        heavy = np.flatnonzero(counts >= total / _BINS)
        places = np.unique(np.concatenate([tenths, heavy, heavy + 1]))
        edges = distinct[places[(places > 0) & (places < len(distinct))]]
    return count(edges.tolist(), values)


def count(edges: Sequence[float], values: npt.NDArray[np.floating]) -> Histogram:
    """Counts values with a given ruler: bin i holds values in [edges[i-1], edges[i]). NaN is missing."""
    values = np.asarray(values, dtype=np.float64)
    present = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(np.asarray(edges, dtype=np.float64), present, side="right"), minlength=len(edges) + 1)
    return Histogram(list(edges), counts.tolist(), len(values) - len(present), len(values))
