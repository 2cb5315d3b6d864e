"""The tiles of many entities at once: what each one held after each of its events, and windows merged from them.

The numbers are those of a fold of one event after the other, to the bit: the lines of the slots fold the first event of every tile, then the
second one, and so on; the windows that have equally many tiles are merged together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.declarations.expressions import Column
from tidemill.declarations.windows import Grid
from tidemill.kernel.arrays import Bools, Floats, FoldArrays, Numbers
from tidemill.kernel.tiles import Open, TileLayout, compile_fold

Ints = npt.NDArray[np.int64]
FEW_TILES = 24
"""Fewer tiles are folded one by one: an operation on arrays costs as much as some on numbers."""
_TILES_AT_ONCE = 1 << 18


class Events(NamedTuple):
    """Events by entity, those of one entity in the order of known. `columns`: the view's columns by text. None is a second publication."""

    entities: Ints
    times_ms: Ints
    columns: Mapping[str, Numbers]

    def take(self, places: Ints) -> Events:
        """Some of them."""
        return Events(self.entities[places], self.times_ms[places], {text: column.take(places) for text, column in self.columns.items()})

    def cut(self, stretch: slice) -> Events:
        """Those of a stretch."""
        return Events(self.entities[stretch], self.times_ms[stretch], {text: column.cut(stretch) for text, column in self.columns.items()})


class AskedAt(NamedTuple):
    """Questions, and the time of the newest event that each one sees."""

    entities: Ints
    last: Ints
    times_ms: Ints
    newest_ms: Ints


class TileVersions:
    """The tiles of one length, by entity and time, as they were after each of their events.

    `places`: where the events stand among all events, of which there are `many`, and to which questions refer.
    """

    def __init__(self, grid: Grid, layout: TileLayout, fold: FoldArrays, events: Events, places: Ints, many: int) -> None:
        index: Any = grid.index  # it calculates with arrays as with numbers
        indices: Ints = index(events.times_ms)
        self._layout, self._pairs, self._many = layout, Pairs(events.entities, indices), many
        keys = self._pairs.of(events.entities, indices)
        if (keys[1:] < keys[:-1]).any():
            order = np.argsort(keys, kind="stable")
            keys, places, events = keys[order], places[order], events.take(order)
        begin = begins_of(keys)
        self._begins = np.flatnonzero(begin)
        self._keys = keys[self._begins]
        self._versions = (np.cumsum(begin) - 1) * many + places  # a tile and the place of an event, in order of both
        self._slots = [np.full(len(keys), number) for number in layout.empty]
        self._fold(fold, events)

    def _fold(self, fold: FoldArrays, events: Events) -> None:
        """Writes the slots of every tile after each of its events: of all tiles after the first event, then after the second one. When few
        tiles have more events, these are folded one by one."""
        tiles, ends = np.arange(len(self._begins)), np.append(self._begins[1:], len(events.times_ms))
        for nth in count():
            tiles = tiles[self._begins[tiles] + nth < ends[tiles]]
            if len(tiles) < FEW_TILES:
                break
            at = self._begins[tiles] + nth
            held = [numbers[at - 1 if nth else at] for numbers in self._slots]
            with np.errstate(all="ignore"):  # where a condition does not hold, anything may be calculated
                fold(held, events.times_ms[at].astype(np.float64), {text: column.take(at) for text, column in events.columns.items()})
            for numbers, changed in zip(self._slots, held, strict=True):
                numbers[at] = changed
        for tile in tiles.tolist():
            start = int(self._begins[tile]) + nth
            self._fold_rest(events, slice(start, int(ends[tile])), [float(numbers[start - 1 if nth else start]) for numbers in self._slots])

    def _fold_rest(self, events: Events, rest: slice, held: list[Any]) -> None:
        """Folds the events of a stretch into the tile `held`, one after the other."""
        columns = {text: Column(text, (), f"v[{i}]") for i, text in enumerate(events.columns)}
        fold = compile_fold([Open(self._layout, 0, self._layout.width)], columns)
        values = (
            zip(*(column.cut(rest).told() for column in events.columns.values()), strict=True)
            if columns
            else [()] * (rest.stop - rest.start)
        )
        for at, time_ms, v in zip(range(rest.start, rest.stop), events.times_ms[rest].tolist(), values, strict=True):
            fold(held, time_ms, v)
            for numbers, changed in zip(self._slots, held, strict=True):
                numbers[at] = changed

    def merged(self, asked: AskedAt, first: Ints | int, last: Ints | int) -> Floats:
        """The slots of each question's window, merged: the tiles with index `first` to `last`."""
        begin = np.searchsorted(self._keys, self._pairs.of(asked.entities, first))
        end = np.searchsorted(self._keys, self._pairs.of(asked.entities, last + 1))
        slots = np.empty((len(begin), self._layout.width))
        for part in parts(end - begin, _TILES_AT_ONCE):
            self._merge(begin[part], end[part], asked.last[part], slots[part])
        return slots

    def _merge(self, begin: Ints, end: Ints, last: Ints, slots: Floats) -> None:
        """Writes the merged slots of some questions: the tiles from `begin` to `end`, as they were after the event `last`."""
        tiles_of = end - begin
        question = np.repeat(np.arange(len(begin)), tiles_of)
        tiles = np.arange(len(question)) + np.repeat(begin - (np.cumsum(tiles_of) - tiles_of), tiles_of)
        versions = np.searchsorted(self._versions, tiles * self._many + last[question], "right") - 1
        begun = versions >= self._begins[tiles]
        versions, tiles_of = versions[begun], np.bincount(question[begun], minlength=len(begin))
        begin = np.cumsum(tiles_of) - tiles_of
        for many in set(tiles_of.tolist()):
            alike = np.flatnonzero(tiles_of == many)
            chosen = versions[begin[alike, None] + np.arange(many)]
            slots[alike] = self._layout.merge_each(np.stack([numbers[chosen] for numbers in self._slots], axis=-1))


class Pairs:
    """An entity and a moment as one number, in order of both. `moments`: those of these entities; any other pair may be asked for."""

    def __init__(self, entities: Ints, moments: Ints) -> None:
        self._lowest, self._highest = int(moments.min()), int(moments.max())
        self._width = self._highest - self._lowest + 2
        self._beyond = int(entities.max()) + 1
        self._ranks: Ints | None = None
        if self._width * (self._beyond + 1) >= 2**62:  # beyond a whole number of 64 bits: ranks in place of moments
            self._ranks, self._width = np.sort(moments), len(moments) + 1

    def of(self, entities: Ints, moments: Ints | int) -> Ints:
        """The number of each pair. That of a moment or an entity before or after all others lies before or after theirs."""
        entities = np.minimum(entities, self._beyond)  # a larger one might not fit into 64 bits
        if self._ranks is None:
            steps: Ints = np.clip(moments, self._lowest, self._highest + 1) - self._lowest
            return entities * self._width + steps
        ranks: Ints = np.searchsorted(self._ranks, moments)
        return entities * self._width + ranks


def begins_of(sorted_keys: Ints) -> Bools:
    """Where another key begins."""
    begins: Bools = np.diff(sorted_keys, prepend=-1) != 0
    return begins


def parts(sizes: Ints, most: int) -> Iterator[slice]:
    """Stretches whose sizes are together at most so much, or of one that is larger."""
    begin, ends = 0, np.cumsum(sizes)
    while begin < len(sizes):
        end = max(int(np.searchsorted(ends, (ends[begin - 1] if begin else 0) + most, "right")), begin + 1)
        yield slice(begin, end)
        begin = end
