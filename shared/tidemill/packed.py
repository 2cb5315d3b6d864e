"""An entity's state, and how it is packed into the one value that the online store keeps of it.

    head: CRC-32, newest event time, format, number of recent ids; if events may wait, the time of the newest one whose tile is out of reach;
          for each tile length the rows in use, for each the rows in all, for each the slots of the open tile, that of the newest event;
          then the recent ids
    rows: for each tile length the closed tiles in order of time, each with the lower half of its index; then rows not yet in use

An event changes the open tiles, hence the head; a tile that closes becomes the next free row. So a long value is changed in place, in two
or three short pieces. Only when no row is free is the value laid out anew: tiles that no window reaches are dropped, and a sixth of
what is left is added as free rows. When that happens depends on the entity's events alone, so equal histories give equal bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from operator import gt, mul
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.errors import CorruptState
from tidemill.tiles import Matrix

FORMAT = 3
NEVER = -(2**62)
PATCH_BYTES = 1024  # a shorter value is written whole: that costs the store less than looking at its length and changing pieces
_CRC_BYTES = 4
_LOW = 0xFFFF_FFFF
_NO_ROWS = bytearray()  # never changed: rows that grow become another object


class EntityState:
    """The tiles of one entity: of each length the open one (its `index`; the `slots` of all lengths stand one after the other) and the closed
    ones as packed `rows`, `count` of them in use and `capacity` in all.

    `changed`: rows changed since the value was last written, by length and place (None: the whole value has to be written);
    `length`: how long the written value is. `rows_crc`: of all rows (None: not known). `passed`: time of the newest event whose tile of the
    first length is out of reach, kept where events may wait.
    """

    __slots__ = ("capacity", "changed", "count", "ids", "index", "length", "newest", "passed", "rows", "rows_crc", "slots")

    newest: int
    passed: int
    ids: list[bytes]
    index: list[int]
    slots: list[float]
    count: list[int]
    capacity: list[int]
    rows: list[bytearray]
    rows_crc: int | None
    changed: list[tuple[int, int]] | None
    length: int


class Patch(NamedTuple):
    """A change of a stored value that is `length` bytes long: the bytes from each offset on."""

    length: int
    pieces: list[tuple[int, bytes]]


class TileRows(NamedTuple):
    """The tiles of one length as they are read: index and slots of the open tile, and for each closed one, in order of time, its slots
    and how many tiles it lies before the open one (`ages`: newest first)."""

    newest: int
    slots: Sequence[float]
    closed: Matrix
    ages: npt.NDArray[np.uint32]

    def select(self, oldest: int, last: int) -> Matrix:
        """The tiles with index `oldest` to `last`, in order of time."""
        n, begin, end = len(self.ages), 0, 0
        if n and oldest < self.newest:
            begin = n - int(self.ages.searchsorted(min(self.newest - oldest, _LOW), "right"))
            end = n - int(self.ages.searchsorted(min(max(self.newest - last, 0), _LOW)))
        is_open = oldest <= self.newest <= last
        tiles = np.empty((max(end - begin, 0) + is_open, len(self.slots)))
        if is_open:
            tiles[-1] = self.slots
            tiles[:-1] = self.closed[begin:end]
        else:
            tiles[:] = self.closed[begin:end]
        return tiles


class _Length:
    """Tiles of one length: `kept` of them are in reach of a window; the slots of the open one stand from `first` to `end`."""

    def __init__(self, tile_ms: int, width: int, kept: int, first: int) -> None:
        self.tile_ms, self.kept, self.first, self.end = tile_ms, kept, first, first + width
        row = struct.Struct(f"<I{width}d")
        self.size, self.pack_into, self.unpack_from = row.size, row.pack_into, row.unpack_from
        self.dtype = np.dtype([("low", "<u4"), ("slots", "<f8", (width,))])


class Packing:
    """Packs the states of one view. `lengths`: of each length of tiles its milliseconds (0: one tile for ever), slots, and tiles kept.
    `waits`: whether events may wait for their time."""

    def __init__(self, view: str, lengths: Sequence[tuple[int, int, int]], waits: bool = False) -> None:
        self._view = view
        self._waits = waits
        self._lengths: list[_Length] = []
        first = 0
        for tile_ms, width, kept in lengths:
            self._lengths.append(_Length(tile_ms, width, kept, first))
            first += width
        n = len(lengths)
        body = "qBB" + "q" * waits + f"{2 * n}H{first}d"
        self._head, self._body = struct.Struct(f"<I{body}"), struct.Struct(f"<{body}")
        self._count = 4 + waits  # where these stand in the head
        self._capacity, self._slots = self._count + n, self._count + 2 * n
        self._sizes = [length.size for length in self._lengths]
        self._never, self._zero, self._no_rows, self._no_slots = [NEVER] * n, [0] * n, [_NO_ROWS] * n, [0.0] * first

    def new(self) -> EntityState:
        """The state of an entity that has seen nothing."""
        state = EntityState()
        state.newest = state.passed = NEVER
        state.ids, state.index, state.slots = [], [*self._never], [*self._no_slots]
        state.count, state.capacity, state.rows = [*self._zero], [*self._zero], [*self._no_rows]
        state.rows_crc, state.changed, state.length = 0, None, 0
        return state

    def first(self, r: int) -> int:
        """Where the slots of the open tile of a length begin."""
        return self._lengths[r].first

    def open(self, state: EntityState, r: int, index: int, slots: list[float]) -> None:
        """Closes the open tile of a length and opens a newer one, with these slots."""
        length, closed = self._lengths[r], state.index[r]
        closed_slots = state.slots[length.first : length.end]
        state.index[r], state.slots[length.first : length.end] = index, slots
        if closed < index - length.kept:  # and so is every tile before it
            if state.count[r]:
                state.rows[r], state.count[r], state.capacity[r] = _NO_ROWS, 0, 0
                state.changed = state.rows_crc = None
            return
        n = state.count[r]
        if n == state.capacity[r]:
            n = self._make_room(state, r)
        length.pack_into(state.rows[r], n * length.size, closed & _LOW, *closed_slots)
        state.count[r], state.rows_crc = n + 1, None
        if state.changed is not None:
            state.changed.append((r, n))

    def row(self, state: EntityState, r: int, index: int) -> tuple[int, list[float] | None]:
        """Where the closed tile `index` stands or would stand, and its slots."""
        length, ages = self._lengths[r], self._ages(state, r)
        age = state.index[r] - index
        j, n = int(ages.searchsorted(age)), len(ages)
        if j < n and int(ages[j]) == age:
            return n - 1 - j, list(length.unpack_from(state.rows[r], (n - 1 - j) * length.size)[1:])
        return n - j, None

    def replace(self, state: EntityState, r: int, i: int, index: int, slots: list[float]) -> None:
        """Changes a closed tile."""
        length = self._lengths[r]
        length.pack_into(state.rows[r], i * length.size, index & _LOW, *slots)
        state.rows_crc = None
        if state.changed is not None:
            state.changed.append((r, i))

    def insert(self, state: EntityState, r: int, index: int, slots: list[float]) -> None:
        """Adds a closed tile among the others."""
        n, size = state.count[r], self._lengths[r].size
        if n == state.capacity[r]:
            n = self._make_room(state, r)
        (i, _), rows = self.row(state, r, index), state.rows[r]
        rows[(i + 1) * size : (n + 1) * size] = rows[i * size : n * size]
        self._lengths[r].pack_into(rows, i * size, index & _LOW, *slots)
        state.count[r], state.changed, state.rows_crc = n + 1, None, None

    def _ages(self, state: EntityState, r: int) -> npt.NDArray[np.uint32]:
        return _ages(np.frombuffer(state.rows[r], self._lengths[r].dtype, state.count[r]), state.index[r])

    def _make_room(self, state: EntityState, r: int) -> int:
        """Drops the closed tiles of a length that no window reaches and adds free rows; returns how many are in use."""
        length, rows, n = self._lengths[r], state.rows[r], state.count[r]
        if n and (state.index[r] - int.from_bytes(rows[:4], "little")) & _LOW > length.kept:
            dropped = int((self._ages(state, r) > length.kept).sum())
            rows, n = rows[dropped * length.size :], n - dropped
            state.count[r] = n
        free = max(n // 6, min(8, sum(state.count) // 6), 1)
        state.rows[r], state.capacity[r], state.changed = rows + bytes(free * length.size), n + free, None
        return n

    def encode(self, state: EntityState) -> bytes:
        """The value, whole."""
        return b"".join((self._encode_head(state), *state.rows))

    def write(self, state: EntityState) -> bytes | Patch:
        """What has to be written for the stored value to become `encode(state)`; it then counts as written."""
        head = self._encode_head(state)
        length = len(head) + sum(map(len, state.rows))
        changed, before = state.changed, state.length
        state.length = length
        if length < PATCH_BYTES:
            return b"".join((head, *state.rows))
        state.changed = []
        if changed is None or length != before:
            return b"".join((head, *state.rows))
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
        passed = (state.passed,) if self._waits else ()
        body = self._body.pack(state.newest, FORMAT, len(state.ids), *passed, *state.count, *state.capacity, *state.slots)
        if state.ids:
            body += b"".join(state.ids)
        if state.rows_crc is None:
            state.rows_crc = 0
            for rows in state.rows:
                state.rows_crc = zlib.crc32(rows, state.rows_crc)
        return zlib.crc32(body, state.rows_crc).to_bytes(_CRC_BYTES, "little") + body

    def decode(self, value: bytes) -> EntityState:
        """The state of a stored value. Raises CorruptState when its checksum or length does not fit."""
        fields, start = self._open(value)
        state = EntityState()
        newest = state.newest = fields[1]
        state.passed = self._passed(fields)
        state.ids = [value[i : i + 8] for i in range(start - 8 * fields[3], start, 8)] if fields[3] else []
        state.index = self._open_indices(newest)
        state.count, state.capacity = [*fields[self._count : self._capacity]], [*fields[self._capacity : self._slots]]
        state.slots = [*fields[self._slots :]]
        state.length = len(value)
        state.changed = [] if state.length >= PATCH_BYTES else None
        if start == state.length:
            state.rows, state.rows_crc = [*self._no_rows], 0
            return state
        state.rows, state.rows_crc = [], None
        for size, capacity in zip(self._sizes, state.capacity, strict=True):
            state.rows.append(bytearray(value[start : start + size * capacity]))
            start += size * capacity
        return state

    def _open_indices(self, newest_ms: int) -> list[int]:
        """The index of the open tile of each length: that of the newest event."""
        return [newest_ms // length.tile_ms if length.tile_ms else 0 for length in self._lengths]

    def _passed(self, fields: tuple[Any, ...]) -> int:
        return int(fields[4]) if self._waits else NEVER

    def _open(self, value: bytes) -> tuple[tuple[Any, ...], int]:
        """The fields of the head, and where the rows begin."""
        try:
            fields = self._head.unpack_from(value)
        except struct.error:
            raise CorruptState(f"view {self._view!r}: a stored value of {len(value)} bytes is cut short") from None
        start = self._head.size + 8 * fields[3]
        counts, capacities = fields[self._count : self._capacity], fields[self._capacity : self._slots]
        end = start + sum(map(mul, self._sizes, capacities))
        if fields[2] != FORMAT or len(value) != end or any(map(gt, counts, capacities)):
            raise CorruptState(f"view {self._view!r}: a stored value of {len(value)} bytes has the wrong length or format")
        if fields[0] != zlib.crc32(value[_CRC_BYTES:start], zlib.crc32(value[start:])):
            raise CorruptState(f"view {self._view!r}: a stored value fails its checksum")
        return fields, start

    def read(self, value: bytes) -> tuple[int, int, list[TileRows]]:
        """Newest event time, `passed`, and tiles of a stored value, by length. Raises CorruptState."""
        fields, start = self._open(value)
        newest, slots, tiles = fields[1], fields[self._slots :], []
        for r, (length, index) in enumerate(zip(self._lengths, self._open_indices(newest), strict=True)):
            rows = np.frombuffer(value, length.dtype, fields[self._count + r], start)
            tiles.append(TileRows(index, slots[length.first : length.end], rows["slots"], _ages(rows, index)))
            start += fields[self._capacity + r] * length.size
        return newest, self._passed(fields), tiles

    def view(self, state: EntityState) -> Iterator[TileRows]:
        """The tiles of a state, by length."""
        for r, length in enumerate(self._lengths):
            rows = np.frombuffer(state.rows[r], length.dtype, state.count[r])
            slots = state.slots[length.first : length.end]
            yield TileRows(state.index[r], slots, rows["slots"], _ages(rows, state.index[r]))


def _ages(rows: npt.NDArray[Any], index: int) -> npt.NDArray[np.uint32]:
    """How many tiles each row lies before `index`, newest first."""
    ages: npt.NDArray[np.uint32] = np.uint32(index & _LOW) - rows["low"][::-1]
    return ages
