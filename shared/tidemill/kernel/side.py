"""Packed values of views whose tiles keep side values: lists, sketches, whatever varies in size.

    CRC-32 of what follows up to the packed value, its length
    sizes of all side values, two bytes each, then the side values: for each length of tiles those of the open tile, then of the closed ones
    the value as every view has it (packed.py), with a checksum of its own

In memory the side values of the open tiles stand at the end of a state's head, where the compiled fold finds them; those of the closed
tiles in `sides`, row by row. A view without side values knows nothing of this module. A value is written whole: it changes in length with
nearly every event.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, islice, pairwise
from operator import mul

from tidemill.declarations.windows import Grid
from tidemill.errors import CorruptState
from tidemill.kernel.packed import EntityState, Packing, TileRows
from tidemill.kernel.tiles import Held

_FRAME = struct.Struct("<II")  # checksum, length of the part of side values
Decode = Callable[[bytes], EntityState]
Taken = tuple[tuple[bytes, ...], list[tuple[bytes, ...]]]
"""The side values of the open tile of a length, and of its closed ones."""


class SidePacking(Packing):
    """Packs the states of one view. `sides`: how many side values a tile of each length has."""

    def __init__(self, view: str, lengths: Sequence[tuple[Grid, int, int]], sides: Sequence[int], waits: bool = False) -> None:
        super().__init__(view, lengths, waits, side_values=sum(sides))
        self._sides = sides
        self._first_sides = [len(self._new) - sum(sides[r:]) for r in range(len(sides))]

    def first_side(self, r: int) -> int:
        """Where in a head the side values of the open tile of a length begin."""
        return self._first_sides[r]

    def new(self) -> EntityState:
        """The state of an entity that has seen nothing."""
        state = super().new()
        state.sides = [[] for _ in self._sides]
        return state

    def open(self, state: EntityState, r: int, closed: int, index: int, slots: list[float]) -> None:
        """As for every value; the side values of the tile that is closed go along."""
        super().open(state, r, closed, index, slots)
        values = self._open_sides(state.head, r)
        in_use = state.head[self._count + r]
        if in_use:
            state.sides[r].append(values)
        else:
            state.sides[r] = []
        for i in range(self._sides[r]):
            state.head[self._first_sides[r] + i] = b""

    def _open_sides(self, head: Sequence[Held], r: int) -> tuple[bytes, ...]:
        first = self._first_sides[r]
        return tuple(value for value in head[first : first + self._sides[r]] if isinstance(value, bytes))

    def row(self, state: EntityState, r: int, index: int) -> tuple[int, list[Held] | None]:
        """As for every value, with the side values after the numbers."""
        place, found = super().row(state, r, index)
        return place, None if found is None else [*found, *state.sides[r][place]]

    def replace(self, state: EntityState, r: int, i: int, index: int, slots: Sequence[Held]) -> None:
        """Changes a closed tile."""
        numbers, state.sides[r][i] = self._split(r, slots)
        super().replace(state, r, i, index, numbers)

    def insert(self, state: EntityState, r: int, index: int, slots: Sequence[Held]) -> None:
        """Adds a closed tile among the others."""
        numbers, sides = self._split(r, slots)
        super().insert(state, r, index, numbers)
        state.sides[r].insert(super().row(state, r, index)[0], sides)

    def _split(self, r: int, tile: Sequence[Held]) -> tuple[list[Held], tuple[bytes, ...]]:
        width = len(tile) - self._sides[r]
        return [*tile[:width]], tuple(value for value in tile[width:] if isinstance(value, bytes))

    def _make_room(self, state: EntityState, r: int, index: int) -> int:
        before = state.head[self._count + r]
        in_use = super()._make_room(state, r, index)
        del state.sides[r][: before - in_use]
        return in_use

    def encode(self, state: EntityState) -> bytes:
        """The value, whole."""
        values = [value for r, closed in enumerate(state.sides) for value in chain(self._open_sides(state.head, r), *closed)]
        part = b"".join((struct.pack(f"<{len(values)}H", *map(len, values)), *values))
        length = len(part).to_bytes(4, "little")
        return b"".join((zlib.crc32(part, zlib.crc32(length)).to_bytes(4, "little"), length, part, super().encode(state)))

    def write(self, state: EntityState) -> bytes:
        """The value, whole; it then counts as written."""
        value = self.encode(state)
        state.length = len(value)
        return value

    def decode(self, value: bytes) -> EntityState:
        """The state of a stored value. Raises CorruptState when a checksum or a length does not fit."""
        return self._with_sides(value, self._checked(value), super().decode)

    def reopen(self, value: bytes) -> EntityState:
        """`decode` without looking for damage."""
        return self._with_sides(value, _FRAME.unpack_from(value)[1], super().reopen)

    def _with_sides(self, value: bytes, part: int, decode: Decode) -> EntityState:
        state = decode(value[_FRAME.size + part :])
        state.sides, state.length, state.changed = [], len(value), None
        for r, (opened, closed) in enumerate(self._take_out(value, part, state.head)):
            state.sides.append(closed)
            first = self._first_sides[r]
            state.head[first : first + len(opened)] = opened
        return state

    def _checked(self, value: bytes) -> int:
        """How long the part of side values is."""
        start = _FRAME.size
        if len(value) >= start:
            crc, length = _FRAME.unpack_from(value)
            if len(value) >= start + length and crc == zlib.crc32(value[start - 4 : start + length]):
                return int(length)
        raise CorruptState(f"view {self._view!r}: the side values of a stored value of {len(value)} bytes fail their checksum")

    def _take_out(self, value: bytes, part: int, head: Sequence[int]) -> list[Taken]:
        """For each length the side values of the open tile, and those of the closed ones."""
        tiles = [1 + head[self._count + r] for r in range(len(self._sides))]
        values_in_all = sum(map(mul, self._sides, tiles))
        sizes = struct.unpack_from(f"<{values_in_all}H", value, _FRAME.size) if 2 * values_in_all <= part else ()
        if 2 * len(sizes) + sum(sizes) != part:
            raise CorruptState(f"view {self._view!r}: a stored value has not the side values of its tiles")
        ends = accumulate(sizes, initial=_FRAME.size + 2 * len(sizes))
        values = iter([value[start:end] for start, end in pairwise(ends)])
        taken: list[Taken] = []
        for n, count in zip(self._sides, tiles, strict=True):
            opened, *closed = [tuple(islice(values, n)) for _ in range(count)]
            taken.append((opened, closed))
        return taken

    def read(self, value: bytes) -> tuple[int, int, list[TileRows]]:
        """Newest event time, `passed`, and tiles of a stored value, by length. Raises CorruptState."""
        part = self._checked(value)
        newest, passed, tiles = super().read(value[_FRAME.size + part :])
        head = self._head.unpack_from(value, _FRAME.size + part + 4)
        taken = self._take_out(value, part, head)
        return newest, passed, [rows._replace(open_sides=o, closed_sides=c) for rows, (o, c) in zip(tiles, taken, strict=True)]

    def view(self, state: EntityState) -> Iterator[TileRows]:
        """The tiles of a state, by length."""
        for r, rows in enumerate(super().view(state)):
            yield rows._replace(open_sides=self._open_sides(state.head, r), closed_sides=state.sides[r])
