"""Packed values of views whose tiles have side values: lists and sketches, whose size varies.

A part for the side values stands before the value of packed.py, which stays as it is:

    bytes
    4        CRC-32 of the length and the part
    4        length of the part
    m x 2    sizes of the m side values      | the part
    ...      the m side values               |
    ...      the value of packed.py, with a checksum of its own

Sizes and side values have one order: for each length of tiles, first the open tile, then the closed tiles in order of time; within a tile,
the order of its layout.

In memory there is no such part. The side values of the open tiles stand at the end of a state's head, where the compiled fold reads and
writes them; those of the closed tiles stand in `EntityState.sides`, one entry per row in use. `Packing` moves rows, and each method here
that overrides one of its methods moves the entries of `sides` in the same way.

The value is written whole, since nearly every event changes its length. A view without side values runs none of this code.
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

_FRAME = struct.Struct("<II")  # checksum and length of the part
Decode = Callable[[bytes], EntityState]
Taken = tuple[tuple[bytes, ...], list[tuple[bytes, ...]]]
"""The side values of one length: those of the open tile, and those of each closed tile."""


class SidePacking(Packing):
    """Packs the states of one view. `sides`: how many side values a tile of each length has."""

    def __init__(self, view: str, lengths: Sequence[tuple[Grid, int, int]], sides: Sequence[int], waits: bool = False) -> None:
        super().__init__(view, lengths, waits, side_values=sum(sides))
        self._sides = sides
        self._first_sides = [len(self._new) - sum(sides[r:]) for r in range(len(sides))]

    def first_side(self, r: int) -> int:
        """The place in a head where the side values of the open tile of a length begin."""
        return self._first_sides[r]

    def new(self) -> EntityState:
        """The state of an entity without events."""
        state = super().new()
        state.sides = [[] for _ in self._sides]
        return state

    def clear(self, state: EntityState) -> None:
        """As in `Packing`, without side values."""
        super().clear(state)
        state.sides = [[] for _ in self._sides]

    def open(self, state: EntityState, r: int, closed: int, index: int, slots: list[float]) -> None:
        """As in `Packing`; the side values of the closed tile move from the head to `sides`."""
        super().open(state, r, closed, index, slots)
        values = self._open_sides(state.head, r)
        if self.in_use(state.head, r):
            state.sides[r].append(values)
        else:
            state.sides[r] = []
        for i in range(self._sides[r]):
            state.head[self._first_sides[r] + i] = b""

    def _open_sides(self, head: Sequence[Held], r: int) -> tuple[bytes, ...]:
        first = self._first_sides[r]
        return tuple(value for value in head[first : first + self._sides[r]] if isinstance(value, bytes))

    def row(self, state: EntityState, r: int, index: int) -> tuple[int, list[Held] | None]:
        """As in `Packing`, with the side values after the numbers."""
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
        before = self.in_use(state.head, r)
        in_use = super()._make_room(state, r, index)
        del state.sides[r][: before - in_use]
        return in_use

    def encode(self, state: EntityState) -> bytes:
        """The whole value."""
        values = [value for r, closed in enumerate(state.sides) for value in chain(self._open_sides(state.head, r), *closed)]
        part = b"".join((struct.pack(f"<{len(values)}H", *map(len, values)), *values))
        length = len(part).to_bytes(4, "little")
        return b"".join((zlib.crc32(part, zlib.crc32(length)).to_bytes(4, "little"), length, part, super().encode(state)))

    def write(self, state: EntityState) -> bytes:
        """The whole value. The state counts as written from then on."""
        value = self.encode(state)
        state.length = len(value)
        return value

    def decode(self, value: bytes) -> EntityState:
        """The state of a stored value. Raises CorruptState when a checksum, a length or the format is wrong."""
        return self._with_sides(value, self._checked(value), super().decode)

    def reopen(self, value: bytes) -> EntityState:
        """`decode` without checks, as in `Packing`."""
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
        """The length of the part. Raises CorruptState."""
        start = _FRAME.size
        if len(value) >= start:
            crc, length = _FRAME.unpack_from(value)
            if len(value) >= start + length and crc == zlib.crc32(value[start - 4 : start + length]):
                return int(length)
        raise CorruptState(f"view {self._view!r}: the side values of a stored value of {len(value)} bytes fail their checksum")

    def _take_out(self, value: bytes, part: int, head: Sequence[int]) -> list[Taken]:
        """Cuts the part into the side values of each length. Raises CorruptState when their number is not that of the tiles in a head."""
        tiles = [1 + self.in_use(head, r) for r in range(len(self._sides))]
        values_in_all = sum(map(mul, self._sides, tiles))
        sizes = struct.unpack_from(f"<{values_in_all}H", value, _FRAME.size) if 2 * values_in_all <= part else ()
        if 2 * len(sizes) + sum(sizes) != part:
            raise CorruptState(f"view {self._view!r}: the side values of a stored value do not match its tiles")
        ends = accumulate(sizes, initial=_FRAME.size + 2 * len(sizes))
        values = iter([value[start:end] for start, end in pairwise(ends)])
        taken: list[Taken] = []
        for n, count in zip(self._sides, tiles, strict=True):
            opened, *closed = [tuple(islice(values, n)) for _ in range(count)]
            taken.append((opened, closed))
        return taken

    def read(self, value: bytes) -> tuple[int, int, list[TileRows]]:
        """Of a stored value: the time of the newest event, `passed`, and the tiles of each length. Raises CorruptState."""
        part = self._checked(value)
        newest, passed, tiles = super().read(value[_FRAME.size + part :])
        head = self._head.unpack_from(value, _FRAME.size + part + 4)
        taken = self._take_out(value, part, head)
        return newest, passed, [rows._replace(open_sides=o, closed_sides=c) for rows, (o, c) in zip(tiles, taken, strict=True)]

    def view(self, state: EntityState) -> Iterator[TileRows]:
        """The tiles of a state, for each length."""
        for r, rows in enumerate(super().view(state)):
            yield rows._replace(open_sides=self._open_sides(state.head, r), closed_sides=state.sides[r])
