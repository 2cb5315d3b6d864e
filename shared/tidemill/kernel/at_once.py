"""Reading a view as it was for many questions at once, over the events of many entities.

The values are those of `ViewKernel.apply` and `read_state`, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from tidemill.kernel.arrays import Floats, FoldArrays, compile_arrays
from tidemill.kernel.packed import NEVER
from tidemill.kernel.tile_versions import AskedAt, Events, Ints, Pairs, TileVersions, begins_of, parts
from tidemill.kernel.view import Merged, ViewKernel

_EVENTS_AT_ONCE = 1 << 17


class ReadAtOnce:
    """Reads the features of one view: one of numbers alone, whose events do not wait (`of`)."""

    def __init__(self, kernel: ViewKernel, folds: list[FoldArrays]) -> None:
        self._kernel, self._folds = kernel, folds

    @classmethod
    def of(cls, kernel: ViewKernel) -> Self | None:
        """A reader for a view; None when its events can only be folded one by one."""
        folds = [fold for resolution in kernel.resolutions if (fold := compile_arrays(resolution.layout)) is not None]
        return cls(kernel, folds) if len(folds) == len(kernel.resolutions) and not kernel.view.waits else None

    def read(self, events: Events, last: Ints, times_ms: Ints) -> Floats:
        """The features that an entity had at a moment, after all its events up to one: shape (questions, features), NaN where a request would
        see no value.

        `last`: for each question the place of that event; `times_ms`: the moment, which lies before none of these events.
        """
        last, times_ms, which = _distinct(last, times_ms)
        found = np.full((len(last), len(self._kernel.view.served)), math.nan)
        for block in _blocks(events.entities):
            places = np.flatnonzero((block.start <= last) & (last < block.stop))
            if len(places):
                found[places] = self._read_block(events.cut(block), last[places] - block.start, times_ms[places])
        return found[which]

    def _read_block(self, events: Events, last: Ints, times_ms: Ints) -> Floats:
        kernel, newest_ms = self._kernel, _newest(events)
        asked = AskedAt(events.entities[last], last, times_ms, newest_ms[last])
        before_ms = np.where(begins_of(events.entities), NEVER, np.roll(newest_ms, 1))
        folded = np.flatnonzero(events.times_ms >= before_ms - kernel.horizon_ms)  # the others are late, whoever asks
        events, found = events.take(folded), np.full((len(last), len(kernel.view.served)), math.nan)
        for r, (resolution, fold) in enumerate(zip(kernel.resolutions, self._folds, strict=True)):
            tiles = TileVersions(resolution.grid, resolution.layout, fold, events, folded, len(newest_ms))
            for merged in kernel.plan:
                if merged.resolution == r:
                    self._read_window(merged, tiles, asked, found)
        if kernel.view.ttl_ms is not None:
            found[times_ms - asked.newest_ms > kernel.view.ttl_ms] = math.nan
        return found

    def _read_window(self, merged: Merged, tiles: TileVersions, asked: AskedAt, found: Floats) -> None:
        """Writes the features of a window into `found`. No tile of it was dropped, since no event lies after the moment."""
        at: Any = merged.window.at  # it calculates with arrays as with numbers
        first, last, _ = at(asked.times_ms, asked.newest_ms, 0)
        slots = tiles.merged(asked, first, last)
        for i, read, places, as_ages in merged.numbers:
            held = [slots[:, place] for place in places]
            if as_ages:
                held = [np.maximum(asked.times_ms - times_ms, 0.0) for times_ms in held]
            values = np.fromiter(map(read, *(column.tolist() for column in held)), np.float64, len(asked.last))
            found[:, i] = np.where(np.isfinite(values), values, math.nan)
            if merged.since_ms:
                begins_ms: Any = merged.window.grid.start_ms
                found[begins_ms(first) < merged.since_ms if merged.window.bounded else slice(None), i] = math.nan


def _distinct(last: Ints, times_ms: Ints) -> tuple[Ints, Ints, Ints]:
    """The questions that differ, since many may be of a few entities at the same moments, and for each question which of these it is."""
    order = np.lexsort((times_ms, last))
    in_order = last[order], times_ms[order]
    differs = np.ones(len(order), np.bool_)
    differs[1:] = np.logical_or(*(numbers[1:] != numbers[:-1] for numbers in in_order))
    which = np.empty(len(order), np.int64)
    which[order] = np.cumsum(differs) - 1
    return in_order[0][differs], in_order[1][differs], which


def _newest(events: Events) -> Ints:
    """The time of the newest event of its entity, up to each event."""
    pairs = Pairs(events.entities, events.times_ms).of(events.entities, events.times_ms)
    rises = np.append(True, pairs[1:] > np.maximum.accumulate(pairs)[:-1])
    newest: Ints = np.maximum.accumulate(np.where(rises, np.arange(len(pairs)), 0))
    return events.times_ms[newest]


def _blocks(entities: Ints) -> Iterator[slice]:
    """Stretches of events that are those of some entities."""
    begins = np.append(np.flatnonzero(begins_of(entities)), len(entities))
    for part in parts(np.diff(begins), _EVENTS_AT_ONCE):
        yield slice(int(begins[part.start]), int(begins[part.stop]))
