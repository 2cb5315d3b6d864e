"""Tiles: the partial aggregate of one entity over one short stretch of event time, as a row of float64 slots.

A `Slot` is one number of a tile. How a slot is folded and how it is merged stands here, once; streaming, audit, training sets
and request-time reads all come through this module, so that they agree to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.declarations.expressions import Column
from tidemill.declarations.slots import Kind, Slot

Matrix = npt.NDArray[np.float64]
Fold = Callable[[list[float], int, Any], None]


_EMPTY: dict[Kind, float] = {
    "n": 0.0, "sum": 0.0, "m2": 0.0, "min": math.inf, "max": -math.inf, "last_time": -math.inf, "last": math.nan,
}  # fmt: skip

# What one event does to a tile `s`, as Python source. {i} is the slot's place, and s{i} its value where a later line wants it; {n} and {sum}
# the places of its column's count and sum, already updated; x the column's value; t the event time in ms. The lines are compiled into
# one function: calling a method per slot would cost several times as much on the hottest path of the system.
_FOLD: dict[Kind, str] = {
    "n": "s[{i}] = s{i} = s[{i}] + 1.0",
    "sum": "s[{i}] = s{i} = s[{i}] + x",
    # Welford's update written with the running sum: M2 += (x - mean before) * (x - mean after).
    "m2": "if s{n} > 1.0: s[{i}] += (x - (s{sum} - x) / (s{n} - 1.0)) * (x - s{sum} / s{n})",
    "min": "if x < s[{i}]: s[{i}] = x",
    "max": "if x > s[{i}]: s[{i}] = x",
    "last_time": "if t >= s[{i}]: s[{i}] = t",
    "last": "if t >= s[{time}]: s[{i}] = x",
}

# Slots that add come first, so that one reduction sums them all; `last` comes before `last_time`, which it reads.
_ORDER: tuple[Kind, ...] = ("n", "sum", "m2", "min", "max", "last", "last_time")


class TileLayout:
    """The slots of a view's tiles, their places, and the fold and merge made for them.

    `fold` folds one event into a tile. `columns` are the parsed columns by their text; a column that is never null shares its count with the count of all events.
    """

    def __init__(self, slots: Sequence[Slot], columns: dict[str, Column], nullable: set[str]) -> None:
        self._always = {None} | {text for text, column in columns.items() if not nullable.intersection(column.fields)}
        distinct = {self._shared(slot) for slot in slots}
        self.slots = tuple(sorted(distinct, key=lambda slot: (_ORDER.index(slot.kind), slot.column or "")))
        self._places = {slot: i for i, slot in enumerate(self.slots)}
        self.width = len(self.slots)
        self.empty = [_EMPTY[slot.kind] for slot in self.slots]
        self.fold = compile_fold([(self, 0)], columns)
        self._repairs = [(i, slot) for i, slot in enumerate(self.slots) if slot.kind not in ("n", "sum")]

    def place(self, slot: Slot) -> int:
        """Where a slot stands in a tile."""
        return self._places[self._shared(slot)]

    def _shared(self, slot: Slot) -> Slot:
        return Slot(slot.kind, None) if slot.kind in ("n", "last_time") and slot.column in self._always else slot

    def merge(self, tiles: Matrix) -> list[float]:
        """Merges tiles in order of time into one row of slots. `tiles`: float64 of shape (tiles, width); none give the empty tile."""
        if len(tiles) <= 1:
            return tiles[0].tolist() if len(tiles) else list(self.empty)
        merged: list[float] = np.add.reduce(tiles, axis=0).tolist()
        for i, slot in self._repairs:
            if slot.kind == "min":
                merged[i] = float(np.minimum.reduce(tiles[:, i]))
            elif slot.kind in ("max", "last_time"):
                merged[i] = float(np.maximum.reduce(tiles[:, i]))
            elif slot.kind == "last":
                merged[i] = float(tiles[_newest(tiles[:, self.place(Slot("last_time", slot.column))]), i])
            else:
                n, total = self.place(Slot("n", slot.column)), self.place(Slot("sum", slot.column))
                merged[i] += _m2_between(tiles[:, n], tiles[:, total], merged[n], merged[total])
        return merged

    def lines(self, column: str | None, first: int) -> list[str]:
        """What one event does to the slots of a column in a tile that begins at place `first` of a list, as Python source."""
        return [self._line(i, slot, first) for i, slot in enumerate(self.slots) if slot.column == column]

    def _line(self, i: int, slot: Slot, first: int) -> str:
        others: dict[str, int] = {}
        if slot.kind == "m2":
            others = {"n": self.place(Slot("n", slot.column)), "sum": self.place(Slot("sum", slot.column))}
        elif slot.kind == "last":
            others = {"time": self.place(Slot("last_time", slot.column))}
        return _FOLD[slot.kind].format(i=first + i, **{name: first + place for name, place in others.items()})


def compile_fold(tiles: Sequence[tuple[TileLayout, int]], columns: dict[str, Column]) -> Fold:
    """The fold of one event into several tiles that stand in one list, each from a place of its own on."""
    lines = ["def fold(s, t, v):"]
    for text in sorted({slot.column for layout, _ in tiles for slot in layout.slots}, key=lambda text: text or ""):
        body = [line for layout, first in tiles for line in layout.lines(text, first)]
        if text is None:
            lines += [f"    {line}" for line in body]
        else:
            lines += [f"    x = {columns[text].source}", "    if x is not None:", *(f"        {line}" for line in body)]
    scope: dict[str, Any] = {}
    exec("\n".join(lines), {"float": float}, scope)  # noqa: S102 - made of parsed columns and the lines above, nothing else
    return scope["fold"]  # type: ignore[no-any-return]


def _newest(times: Matrix) -> int:
    """Index of the newest tile; of equals the later one, as in the fold."""
    return len(times) - 1 - int(times[::-1].argmax())


def _m2_between(n: Matrix, total: Matrix, n_all: float, total_all: float) -> float:
    """What merging adds to the sum of all M2: sum n_i (mean_i - mean)^2. Chan, Golub and LeVeque (1979)."""
    seen = n > 0
    if not seen.all():
        n, total = n[seen], total[seen]
    if not n_all:
        return 0.0
    spread = total / n
    spread -= total_all / n_all
    spread *= spread
    spread *= n
    return float(np.add.reduce(spread))
