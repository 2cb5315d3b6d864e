"""An entity's state, and the one value in which the online store keeps it.

A view has tiles of n lengths. The open tile of each length is the tile of the newest event; it stands in the head. The tiles before it are
closed; they stand in the rows. All numbers are little-endian, without padding:

    bytes                                                                                   place in `EntityState.head`
    head   4                 CRC-32 of all rows and then of the rest of the head            -
           8                 time of the newest event, ms                                   NEWEST
           1                 FORMAT                                                         1
           1                 number of recent ids                                           IDS
           8                 only if events may wait: `Packing.passed`, ms                  PASSED
           n x 2             for each length: rows in use                                   _Length.count
           n x 2             for each length: rows in all                                   _Length.capacity
           n x (width x 8)   for each length: the numbers of its open tile                  _Length.first to .end
           ids x 8           the recent ids, oldest first                                   - (`EntityState.ids`)
    rows, for each length:
           4 + width x 8     a closed tile: the lower 32 bits of its index, its numbers     - (`EntityState.rows`)
           ...               the other closed tiles, in order of time; then free rows

The CRC-32 begins with the rows, so a change of the head alone does not read them again (`rows_crc`).

How a value changes:

1. An event changes the open tiles, so it changes the head.
2. A tile that closes becomes the next free row. So a long value is changed in place, in two or three short pieces (`Patch`).
3. When no row is free, the value is written whole, in a new layout: tiles that no window reaches are dropped, and a sixth of the rest is
   added as free rows. When this happens depends on the entity's events alone, so equal histories give equal bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from operator import gt, mul
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.declarations.windows import Grid
from tidemill.errors import CorruptState
from tidemill.kernel.tiles import Held, Matrix

FORMAT = 3
NEVER = -(2**62)
PATCH_BYTES = 1024  # a shorter value is written whole: this costs the store less than comparing its length and changing pieces
NEWEST, IDS, PASSED = 0, 2, 3  # places in a head; FORMAT is at 1, and PASSED exists only if events may wait
ID_BYTES = 8
_CRC_BYTES = 4
_LOW = 0xFFFF_FFFF
_NO_AGES = np.empty(0, np.uint32)
_NO_ROWS = bytearray()  # shared and never changed: rows that grow become a new object


class EntityState:
    """The tiles of one entity. `head`: all numbers of the value's head except its checksum, so also the open tiles; `ids`: the recent ids,
    oldest first, ID_BYTES each; `rows`: the closed tiles of each length, packed.

    `changed`: the rows that changed since the value was last written, as (length, place) (None: the whole value must be written);
    `length`: the length of the written value in bytes. `rows_crc`: the CRC-32 of all rows (None: not known).
    `sides`: the side values of the closed tiles of each length; set only where a view has side values (side.py).
    """

    __slots__ = ("changed", "head", "ids", "length", "rows", "rows_crc", "sides")

    head: list[Any]
    ids: bytes
    rows: list[bytearray]
    rows_crc: int | None
    changed: list[tuple[int, int]] | None
    length: int
    sides: list[list[tuple[bytes, ...]]]

    @property
    def newest(self) -> int:
        """Time of the newest event, in ms. NEVER if there is none, or none since the entity was erased."""
        newest: int = self.head[NEWEST]
        return newest

    @property
    def recent_ids(self) -> list[str]:
        """The recent ids in hexadecimal, oldest first."""
        return [self.ids[i : i + ID_BYTES].hex() for i in range(0, len(self.ids), ID_BYTES)]


class Patch(NamedTuple):
    """A change of a stored value of `length` bytes. `pieces`: (offset, bytes to write there)."""

    length: int
    pieces: list[tuple[int, bytes]]


class TileRows(NamedTuple):
    """The tiles of one length, for reading. `newest`, `slots`: index and numbers of the open tile; `closed`: those of the closed tiles, in
    order of time; `ages`: how many tiles each lies before the open tile, newest first; `open_sides`, `closed_sides`: the side values."""

    newest: int
    slots: Sequence[float]
    closed: Matrix
    ages: npt.NDArray[np.uint32]
    open_sides: tuple[bytes, ...] = ()
    closed_sides: Sequence[tuple[bytes, ...]] = ()

    def select_sides(self, oldest: int, last: int) -> list[tuple[bytes, ...]]:
        """The side values of the tiles with index `oldest` to `last`, in order of time."""
        begin, end = self._closed(oldest, last)
        return [*self.closed_sides[begin:end], *([self.open_sides] if oldest <= self.newest <= last else [])]

    def _closed(self, oldest: int, last: int) -> tuple[int, int]:
        """Where the closed tiles with index `oldest` to `last` begin and end."""
        n = len(self.ages)
        if not n or oldest >= self.newest:
            return 0, 0
        begin = n - int(self.ages.searchsorted(min(self.newest - oldest, _LOW), "right"))
        return begin, n if last >= self.newest else n - int(self.ages.searchsorted(min(self.newest - last, _LOW)))

    def holds(self, index: int) -> bool:
        """Whether there is a tile with this index."""
        begin, end = self._closed(index, index)
        return index == self.newest or begin < end

    def select(self, oldest: int, last: int) -> Matrix | Sequence[Sequence[float]]:
        """The tiles with index `oldest` to `last`, in order of time."""
        begin, end = self._closed(oldest, last)
        is_open = oldest <= self.newest <= last
        if begin >= end:
            return (self.slots,) if is_open else ()
        tiles = np.empty((end - begin + is_open, len(self.slots)))
        if is_open:
            tiles[-1] = self.slots
            tiles[:-1] = self.closed[begin:end]
        else:
            tiles[:] = self.closed[begin:end]
        return tiles


class _Length:
    """Tiles of one length; windows reach back to the `kept`th tile before the open one. The rest are places in a head: the numbers of the
    open tile stand from `first` to `end`, the number of rows in use at `count`, the number of all rows at `capacity`."""

    def __init__(self, grid: Grid, width: int, kept: int, first: int, count: int, capacity: int) -> None:
        self.index, self.kept, self.first, self.end = grid.index, kept, first, first + width
        self.count, self.capacity = count, capacity
        row = struct.Struct(f"<I{width}d")
        self.size, self.pack_into, self.unpack_from = row.size, row.pack_into, row.unpack_from
        self.dtype = np.dtype([("low", "<u4"), ("slots", "<f8", (width,))])

    def tiles(self, head: Sequence[Any], rows: npt.NDArray[Any]) -> TileRows:
        """The tiles of an entity: the open tile from its head, the closed tiles from its rows."""
        index = self.index(head[NEWEST])
        ages = _ages(rows, index) if len(rows) else _NO_AGES
        return TileRows(index, head[self.first : self.end], rows["slots"], ages)


class Packing:
    """Packs the states of one view. `lengths`: for each length of tiles, its grid, the numbers of a tile, and how many tiles are kept.
    `waits`: whether events may wait for their time. `side_values`: how many places at the end of a head hold side values; `_head` packs
    them as "0s", so they add nothing to the value (side.py)."""

    def __init__(self, view: str, lengths: Sequence[tuple[Grid, int, int]], waits: bool = False, side_values: int = 0) -> None:
        self._view = view
        self._waits = waits
        n = len(lengths)
        self._count = PASSED + waits  # in a head, the first place of the rows in use; `_capacity`: of all rows; `_slots`: of the numbers
        self._capacity = self._count + n
        first = self._slots = self._capacity + n
        self._lengths: list[_Length] = []
        for r, (grid, width, kept) in enumerate(lengths):
            self._lengths.append(_Length(grid, width, kept, first, self._count + r, self._capacity + r))
            first += width
        self._head = struct.Struct(f"<qBB{'q' * waits}{2 * n}H{first - self._slots}d{'0s' * side_values}")
        self._sizes = [length.size for length in self._lengths]
        self._no_rows = [_NO_ROWS] * n
        self._new = [NEVER, FORMAT, 0, *[NEVER] * waits, *[0] * 2 * n, *[0.0] * (first - self._slots), *[b""] * side_values]

    def new(self) -> EntityState:
        """The state of an entity without events."""
        return self._state([*self._new], b"", 0)

    def clear(self, state: EntityState) -> None:
        """Makes a state that of an entity without events, which has recent ids."""
        new = self._state([*self._new], state.ids, state.length)
        state.head, state.rows, state.rows_crc, state.changed = new.head, new.rows, new.rows_crc, new.changed

    def _state(self, head: list[Any], ids: bytes, length: int) -> EntityState:
        """A state without closed tiles."""
        state = EntityState()
        state.head, state.ids, state.length = head, ids, length
        state.rows, state.rows_crc, state.changed = [*self._no_rows], 0, None
        return state

    def first(self, r: int) -> int:
        """The place in a head where the numbers of the open tile of a length begin."""
        return self._lengths[r].first

    def first_side(self, r: int) -> int:
        """The place in a head where the side values of the open tile of a length would begin."""
        return len(self._new)

    def in_use(self, head: Sequence[Any], r: int) -> int:
        """How many closed tiles of a length a head counts."""
        return int(head[self._count + r])

    def passed(self, head: Sequence[Any]) -> int:
        """Time of the newest event whose tile of the first length is out of reach. NEVER if there is none, or if events do not wait."""
        return int(head[PASSED]) if self._waits else NEVER

    def note_passed(self, state: EntityState, time_ms: int) -> None:
        """Raises `passed` to the time of an event whose tile is out of reach. Only for views whose events may wait."""
        state.head[PASSED] = max(state.head[PASSED], time_ms)

    def open(self, state: EntityState, r: int, closed: int, index: int, slots: list[float]) -> None:
        """Closes the open tile of a length, whose index is `closed`, and opens the tile `index` with these numbers.

        The caller sets the time of the newest event afterwards.
        """
        length, head = self._lengths[r], state.head
        first, end, count = length.first, length.end, length.count
        closed_slots, head[first:end] = head[first:end], slots
        n = head[count]
        if closed < index - length.kept:  # no window reaches it, nor any tile before it
            if n:
                state.rows[r], head[count], head[length.capacity] = _NO_ROWS, 0, 0
                state.changed = state.rows_crc = None
            return
        if n == head[length.capacity]:
            n = self._make_room(state, r, index)
        length.pack_into(state.rows[r], n * length.size, closed & _LOW, *closed_slots)
        head[count], state.rows_crc = n + 1, None
        if state.changed is not None:
            state.changed.append((r, n))

    def row(self, state: EntityState, r: int, index: int) -> tuple[int, list[Held] | None]:
        """The row where the closed tile `index` stands, or belongs, and its numbers (None: there is no such tile)."""
        length, newest = self._lengths[r], self._lengths[r].index(state.newest)
        ages, age = _ages(np.frombuffer(state.rows[r], length.dtype, state.head[length.count]), newest), newest - index
        j, n = int(ages.searchsorted(age)), len(ages)
        if j < n and int(ages[j]) == age:
            return n - 1 - j, list(length.unpack_from(state.rows[r], (n - 1 - j) * length.size)[1:])
        return n - j, None

    def replace(self, state: EntityState, r: int, i: int, index: int, slots: Sequence[Held]) -> None:
        """Changes a closed tile."""
        length = self._lengths[r]
        length.pack_into(state.rows[r], i * length.size, index & _LOW, *slots)
        state.rows_crc = None
        if state.changed is not None:
            state.changed.append((r, i))

    def insert(self, state: EntityState, r: int, index: int, slots: Sequence[Held]) -> None:
        """Adds a closed tile among the others."""
        length, head = self._lengths[r], state.head
        n, size = head[length.count], length.size
        if n == head[length.capacity]:
            n = self._make_room(state, r, length.index(state.newest))
        (i, _), rows = self.row(state, r, index), state.rows[r]
        rows[(i + 1) * size : (n + 1) * size] = rows[i * size : n * size]
        length.pack_into(rows, i * size, index & _LOW, *slots)
        head[length.count], state.changed, state.rows_crc = n + 1, None, None

    def _make_room(self, state: EntityState, r: int, index: int) -> int:
        """Drops the closed tiles of a length that no window reaches once the tile `index` is open, and adds free rows.

        Returns how many rows are in use.
        """
        length, head, rows = self._lengths[r], state.head, state.rows[r]
        n: int = head[length.count]
        dropped, start = 0, 0
        while dropped < n and (index - int.from_bytes(rows[start : start + 4], "little")) & _LOW > length.kept:
            dropped, start = dropped + 1, start + length.size
        if dropped:
            rows, n = rows[start:], n - dropped
            head[length.count] = n
        free = max(n // 6, min(8, sum(head[self._count : self._capacity]) // 6), 1)
        state.rows[r], head[length.capacity], state.changed = rows + bytes(free * length.size), n + free, None
        return n

    def encode(self, state: EntityState) -> bytes:
        """The whole value."""
        return b"".join((self._encode_head(state), *state.rows))

    def write(self, state: EntityState) -> bytes | Patch:
        """The whole value or the patch that turns the stored value into `encode(state)`. The state counts as written from then on."""
        head, before, changed = self._encode_head(state), state.length, state.changed
        length = state.length = len(head) + sum(map(len, state.rows)) if any(state.rows) else len(head)
        patched = length >= PATCH_BYTES
        if patched:
            state.changed = []
        if changed is None or length != before or not patched:
            return b"".join((head, *state.rows)) if length > len(head) else head
        pieces, starts = [(0, head)], self._starts(state, len(head))
        for r, i in changed:
            size = self._lengths[r].size
            pieces.append((starts[r] + i * size, bytes(state.rows[r][i * size : (i + 1) * size])))
        return Patch(length, pieces)

    def _starts(self, state: EntityState, start: int) -> list[int]:
        starts = []
        for rows in state.rows:
            starts.append(start)
            start += len(rows)
        return starts

    def _encode_head(self, state: EntityState) -> bytes:
        state.head[IDS] = len(state.ids) // ID_BYTES
        body = self._head.pack(*state.head) + state.ids
        if state.rows_crc is None:
            state.rows_crc = 0
            for rows in state.rows:
                state.rows_crc = zlib.crc32(rows, state.rows_crc)
        return zlib.crc32(body, state.rows_crc).to_bytes(_CRC_BYTES, "little") + body

    def decode(self, value: bytes) -> EntityState:
        """The state of a stored value. Raises CorruptState when its checksum, length or format is wrong."""
        return self._take_apart(value, *self._open(value))

    def reopen(self, value: bytes) -> EntityState:
        """`decode` without checks, for a value that `encode` or `write` returned and that never left this process."""
        head = self._head.unpack_from(value, _CRC_BYTES)
        return self._take_apart(value, head, self._rows_start(head))

    def _take_apart(self, value: bytes, head: tuple[Any, ...], start: int) -> EntityState:
        state = self._state([*head], value[_CRC_BYTES + self._head.size : start], len(value))
        if start < len(value):
            state.rows, state.rows_crc = [], None
            for size, capacity in zip(self._sizes, head[self._capacity : self._slots], strict=True):
                state.rows.append(bytearray(value[start : start + size * capacity]))
                start += size * capacity
        if len(value) >= PATCH_BYTES:
            state.changed = []
        return state

    def _open(self, value: bytes) -> tuple[tuple[Any, ...], int]:
        """The numbers of the head, and the offset where the rows begin. Raises CorruptState."""
        try:
            head = self._head.unpack_from(value, _CRC_BYTES)
        except struct.error:
            raise CorruptState(f"view {self._view!r}: a stored value of {len(value)} bytes is cut short") from None
        start = self._rows_start(head)
        if head[1] != FORMAT or len(value) != self._rows_end(head, start):
            raise CorruptState(f"view {self._view!r}: a stored value of {len(value)} bytes has the wrong length or format")
        if int.from_bytes(value[:_CRC_BYTES], "little") != zlib.crc32(value[_CRC_BYTES:start], zlib.crc32(value[start:])):
            raise CorruptState(f"view {self._view!r}: a stored value fails its checksum")
        return head, start

    def _rows_start(self, head: tuple[Any, ...]) -> int:
        return _CRC_BYTES + self._head.size + ID_BYTES * int(head[IDS])

    def _rows_end(self, head: tuple[Any, ...], start: int) -> int:
        """The offset where the rows end; -1 when a head counts more rows in use than rows in all."""
        if not any(head[self._count : self._slots]):  # most entities of most views have no rows
            return start
        counts, capacities = head[self._count : self._capacity], head[self._capacity : self._slots]
        return -1 if any(map(gt, counts, capacities)) else start + sum(map(mul, self._sizes, capacities))

    def read(self, value: bytes) -> tuple[int, int, list[TileRows]]:
        """Of a stored value: the time of the newest event, `passed`, and the tiles of each length. Raises CorruptState."""
        head, start = self._open(value)
        tiles = []
        for length in self._lengths:
            rows = np.frombuffer(value, length.dtype, head[length.count], start)
            tiles.append(length.tiles(head, rows))
            start += head[length.capacity] * length.size
        return head[NEWEST], self.passed(head), tiles

    def view(self, state: EntityState) -> Iterator[TileRows]:
        """The tiles of a state, for each length."""
        for r, length in enumerate(self._lengths):
            yield length.tiles(state.head, np.frombuffer(state.rows[r], length.dtype, state.head[length.count]))


def _ages(rows: npt.NDArray[Any], index: int) -> npt.NDArray[np.uint32]:
    """How many tiles each row lies before `index`, newest first."""
    ages: npt.NDArray[np.uint32] = np.uint32(index & _LOW) - rows["low"][::-1]
    return ages
