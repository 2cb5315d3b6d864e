"""Tiles: the partial aggregate of one entity over one short stretch of event time.

A tile is a list: the float64 numbers of its slots, then the side values. The kinds of slots (declarations/slots.py) say how an event
changes them and how tiles are merged. This module gives each slot its place, and compiles the fold of one tile, or of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.declarations.expressions import SCOPE, Column
from tidemill.declarations.slots import FloatKind, SideKind, Slot

Matrix = npt.NDArray[np.float64]
Held = float | bytes
Fold = Callable[[list[Any], int, object], None]
"""What one event does to a tile: `fold(tile, time_ms, values)`, `values` having one attribute per field of the view."""


class Open(NamedTuple):
    """The place of a tile in a list of several: its numbers start at `first`, its side values at `first_side`."""

    layout: TileLayout
    first: int
    first_side: int


class TileLayout:
    """The slots of a view's tiles and their places: first `slots`, whose numbers take `width` places, then `sides`, the side values.

    `fold` folds one event into a tile. `columns`: the parsed columns, by their text. A kind that does not look at values, such as a count,
    needs one slot for all columns that are never null (`_shared`).
    """

    def __init__(self, slots: Sequence[Slot], columns: dict[str, Column], nullable: set[str]) -> None:
        self._always = {None} | {text for text, column in columns.items() if not nullable.intersection(column.fields)}
        self.slots: tuple[Slot, ...] = ()
        self.sides: tuple[Slot, ...] = ()
        self._kinds: list[tuple[FloatKind, Slot]] = []
        self._side_kinds: list[SideKind] = []
        self._places: dict[Slot, range] = {}
        self.empty: list[float] = []
        for slot in sorted(self._needed(slots), key=lambda slot: (slot.kind.rank, slot.kind.name, slot.column or "")):
            self._add(slot)
        self.width = len(self.empty)
        for i, slot in enumerate(self.sides, self.width):
            self._places[slot] = range(i, i + 1)
        self.blank: list[Held] = [*self.empty, *[b""] * len(self.sides)]
        self.names = self._name_numbers()
        self._reduced = [
            (i, getattr(np, kind.ufunc)) for kind, slot in self._kinds for i in self.places(slot) if kind.ufunc not in (None, "add")
        ]
        self._merged = [(_slice(self.places(slot)), kind, self._around(slot)) for kind, slot in self._kinds if kind.ufunc is None]
        self.fold = compile_fold([Open(self, 0, self.width)], columns)

    def _needed(self, slots: Sequence[Slot]) -> set[Slot]:
        """These slots and the slots that they need, each once."""
        found, new = set[Slot](), {self._shared(slot) for slot in slots}
        while new:
            found |= new
            new = {self._shared(Slot(kind, slot.column)) for slot in new for kind in slot.kind.needs} - found
        return found

    def _add(self, slot: Slot) -> None:
        kind = slot.kind
        if isinstance(kind, FloatKind):
            self._places[slot] = range(len(self.empty), len(self.empty) + len(kind.empty))
            self.slots, self.empty = (*self.slots, slot), [*self.empty, *kind.empty]
            self._kinds.append((kind, slot))
        elif isinstance(kind, SideKind):
            self.sides = (*self.sides, slot)
            self._side_kinds.append(kind)

    def _name_numbers(self) -> list[str]:
        """A readable name for each number and each side value of a tile."""
        names = []
        for slot in self.slots + self.sides:
            name, many = f"{slot.kind.name}({slot.column or ''})", len(self.places(slot))
            names += [name] if many == 1 else [f"{name}[{i}]" for i in range(many)]
        return names

    @property
    def texts(self) -> list[str | None]:
        """The columns of the slots, in the order in which an event is folded (None: every event, null or not)."""
        return sorted({slot.column for slot in self.slots + self.sides}, key=lambda text: text or "")

    def places(self, slot: Slot) -> range:
        """The places of a slot in a tile."""
        found = self._places.get(slot)
        return self._places[self._shared(slot)] if found is None else found

    def _shared(self, slot: Slot) -> Slot:
        return Slot(slot.kind, None) if not slot.kind.sees_value and slot.column in self._always else slot

    def _around(self, slot: Slot) -> Mapping[str, int]:
        """The places that the source and the merge of a slot refer to, by name."""
        places = {kind.word: self.places(Slot(kind, slot.column))[0] for kind in slot.kind.needs}
        return places | {"i": self.places(slot)[0]}

    def merge(self, tiles: Matrix | Sequence[Sequence[float]]) -> list[float]:
        """Merges the numbers of tiles in order of time; no tiles give the empty tile. `tiles`: (tiles, width)."""
        if len(tiles) < 2:  # most windows of most entities: done without numpy
            return [float(number) for number in next(iter(tiles), self.empty)]
        tiles = np.asarray(tiles, np.float64)
        merged: list[float] = np.add.reduce(tiles, axis=0).tolist()
        for i, ufunc in self._reduced:
            merged[i] = float(ufunc.reduce(tiles[:, i]))
        for place, kind, places in self._merged:
            merged[place] = kind.merge(tiles, places, merged)
        return merged

    def merge_each(self, tiles: Matrix) -> Matrix:
        """`merge` for many windows that have equally many tiles, to the same bits: shape (windows, width). `tiles`: (windows, tiles, width)."""
        if not tiles.shape[1]:
            return np.tile(np.array(self.empty), (len(tiles), 1))
        if tiles.shape[1] == 1:
            return tiles[:, 0]
        merged: Matrix = np.add.reduce(tiles, axis=1)
        for i, ufunc in self._reduced:
            merged[:, i] = ufunc.reduce(tiles[:, :, i], axis=1)
        for place, kind, places in self._merged:
            merged[:, place] = kind.merge_each(tiles, places, merged)
        return merged

    def merge_sides(self, tiles: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Merges the side values of tiles in order of time."""
        return [kind.merge([tile[i] for tile in tiles if tile[i]]) for i, kind in enumerate(self._side_kinds)]

    def show(self, tile: Sequence[Held]) -> dict[str, float | str]:
        """A tile's numbers and side values by name, for a person."""
        sides = [kind.show(held) for kind, held in zip(self._side_kinds, tile[self.width :], strict=True) if isinstance(held, bytes)]
        return dict(zip(self.names, [*(number for number in tile[: self.width] if not isinstance(number, bytes)), *sides], strict=True))

    def lines(self, column: str | None, at: Open, scope: dict[str, object]) -> list[str]:
        """Python source of what one event does to the slots of a column in a tile. Adds to `scope` the functions that it calls."""
        lines = []
        for kind, slot in self._kinds:
            if slot.column == column:
                places = {word: at.first + place for word, place in self._around(slot).items()}
                lines.append(kind.fold.format(**places, **{f"i{k}": places["i"] + k for k in range(1, len(kind.empty))}))
        for i, (side, slot) in enumerate(zip(self._side_kinds, self.sides, strict=True), at.first_side):
            if slot.column == column:
                scope[f"add{i}"] = side.add
                lines.append(f"s[{i}] = add{i}(s[{i}], t, {'None' if column is None else 'x'})")
        return lines


def compile_fold(tiles: Sequence[Open], columns: dict[str, Column]) -> Fold:
    """Compiles the fold of one event into several tiles of one list."""
    lines = ["def fold(s, t, v):"]
    scope: dict[str, Any] = dict(SCOPE)
    for text in sorted({text for at in tiles for text in at.layout.texts}, key=lambda text: text or ""):
        body = [line for at in tiles for line in at.layout.lines(text, at, scope)]
        if text is None:
            lines += [f"    {line}" for line in body]
        else:
            lines += [f"    x = {columns[text].source}", "    if x is not None:", *(f"        {line}" for line in body)]
    exec(_code("\n".join(lines)), scope)  # noqa: S102 - made of parsed columns and the kinds' lines, nothing else
    return scope["fold"]  # type: ignore[no-any-return]


@lru_cache(maxsize=1_024)
def _code(source: str) -> CodeType:
    """Kernels of one view are made again and again, as for each part of a training set; to compile their folds is a third of it."""
    return compile(source, "<fold>", "exec")


def _slice(places: range) -> slice:
    return slice(places.start, places.stop)
