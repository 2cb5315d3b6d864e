"""Histograms with a fixed ruler: made once from the training rows, stored in the manifest, and counted again on live traffic."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

_BINS = 10
_MOST_VALUES = 25


class Histogram(msgspec.Struct, frozen=True):
    """A distribution. `counts[i]`: values in [edges[i-1], edges[i]). The first and the last bin are open: one count more than edges.

    A category is counted by its number. `missing`: how many values are NaN; `rows`: how many there are in all. `unseen`, of a category of
    rows that were held out: how many have a text that no row before has (unset: not known).
    """

    edges: list[float]
    counts: list[int]
    missing: int
    rows: int
    unseen: int | msgspec.UnsetType = msgspec.UNSET


def reference(values: npt.NDArray[np.floating], *, category: bool = False) -> Histogram:
    """A histogram with a ruler that fits the values.

    A category, or a number with at most 25 distinct values, has one bin per value, and one on either side for values not seen in training.
    Any other number has tenths by quantile; a value that makes up a tenth or more of the rows (rain that is 0) has its own bin. Infinite
    values make no edge.
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


def held_out_reference(values: npt.NDArray[np.floating], held_out: int, places: int | None = None) -> Histogram:
    """A histogram of the last `held_out` values. `places`: how many texts a category has.

    The ruler is made from the values before, so that it fits what is held out no better than what comes later.
    """
    before, after = values[:-held_out], values[-held_out:]
    if places is None:
        return count(reference(before).edges or reference(after).edges, after)
    new = ~np.isnan(after) & ~np.isin(after, before)
    return msgspec.structs.replace(count(places_ruler(places), after), unseen=int(new.sum()))


def places_ruler(places: int) -> list[float]:
    """The edges of one bin for each of the places 0, 1, 2 and so on; the first bin, of what lies below, stays empty."""
    return [*map(float, range(places)), float(np.nextafter(places - 1, places))] if places else [0.0]


def count(edges: Sequence[float], values: npt.NDArray[np.floating]) -> Histogram:
    """Counts values with a given ruler: bin i has the values in [edges[i-1], edges[i]). NaN is missing."""
    values = np.asarray(values, dtype=np.float64)
    present = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(np.asarray(edges, dtype=np.float64), present, side="right"), minlength=len(edges) + 1)
    return Histogram(list(edges), counts.tolist(), len(values) - len(present), len(values))
