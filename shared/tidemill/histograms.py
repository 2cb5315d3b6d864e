"""Histograms with a fixed ruler: made once from the training rows, kept in the manifest, and counted again on live traffic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tidemill.models import Histogram

_BINS = 10
_MOST_VALUES = 25


def reference(values: npt.NDArray[np.floating]) -> Histogram:
    """A histogram with a ruler that fits the values: one bin a value when there are at most 25 distinct ones, else tenths by quantile."""
    present = np.asarray(values, dtype=np.float64)
    present = present[~np.isnan(present)]
    distinct = np.unique(present)
    if len(distinct) <= _MOST_VALUES:
        edges = distinct[1:]
    else:
        edges = np.unique(np.quantile(present, np.arange(1, _BINS) / _BINS, method="inverted_cdf"))
        edges = edges[edges > distinct[0]]
    return count(edges.tolist(), values)


def count(edges: Sequence[float], values: npt.NDArray[np.floating]) -> Histogram:
    """Counts values with a given ruler: bin i holds values in [edges[i-1], edges[i])."""
    values = np.asarray(values, dtype=np.float64)
    present = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(np.asarray(edges, dtype=np.float64), present, side="right"), minlength=len(edges) + 1)
    return Histogram(list(edges), counts.tolist(), len(values) - len(present), len(values))
