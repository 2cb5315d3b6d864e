"""An entity's state, and how it is packed into the one value that the online store keeps of it.

    head: CRC-32, newest event time, format, number of recent ids; if events may wait, the time of the newest one whose tile is out of reach;
          then for each tile length: rows in use, rows in all, and the slots of the open tile, that of the newest event; then the recent ids
    rows: for each tile length the closed tiles in order of time, each with the lower half of its index; then rows not yet in use

An event changes the open tiles, hence the head; a tile that closes becomes the next free row. So a long value is changed in place, in two
or three short pieces. Only when no row is free is the value laid out anew: tiles that no window reaches are dropped, and a sixth of
what is left is added as free rows. When that happens depends on the entity's events alone, so equal histories give equal bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.errors import CorruptState
from tidemill.tiles import Matrix

FORMAT = 2
NEVER = -(2**62)
PATCH_BYTES = 1024  # a shorter value is written whole: that costs the store less than looking at its length and changing pieces
_CRC = struct.Struct("<I")
_LOW = 0xFFFF_FFFF


class EntityState:
    """The tiles of one entity: of each length the open one (`index`, `slots`) and the closed ones as packed rows, `count` of them in use.

    `changed`: rows changed since the value was last written, by length and place (None: the whole value has to be written);
    `length`: how long the written value is. `passed`: time of the newest event whose tile of the first length is out of reach, kept
    where events may wait.
    """

    __slots__ = ("changed", "count", "ids", "index", "length", "newest", "passed", "rows", "rows_crc", "slots")

    def __init__(self, lengths: int) -> None:
        self.newest = self.passed = NEVER
        self.ids: list[bytes] = []
        self.index = [NEVER] * lengths
        self.slots: list[list[float]] = [[]] * lengths
        self.count = [0] * lengths
        self.rows = [bytearray() for _ in range(lengths)]
        self.rows_crc: int | None = 0
        self.changed: list[tuple[int, int]] | None = None
        self.length = 0


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
    """Tiles of one length: `kept` of them are in reach of a window; `place` in the head."""

    def __init__(self, tile_ms: int, width: int, kept: int, place: int) -> None:
        self.tile_ms, self.kept, self.place = tile_ms, kept, place
        row = struct.Struct(f"<I{width}d")
        self.size, self.pack_into, self.unpack_from = row.size, row.pack_into, row.unpack_from
        self.dtype = np.dtype([("low", "<u4"), ("slots", "<f8", (width,))])
        self.end = place + 2 + width

    def open_index(self, newest_ms: int) -> int:
        """The index of the open tile: that of the newest event."""
        return newest_ms // self.tile_ms if self.tile_ms else 0


class Packing:
    """Packs the states of one view. `lengths`: of each length of tiles its milliseconds (0: one tile for ever), slots, and tiles kept.
    `waits`: whether events may wait for their time."""

    def __init__(self, view: str, lengths: Sequence[tuple[int, int, int]], waits: bool = False) -> None:
        self._view = view
        self._waits = waits
        self._lengths: list[_Length] = []
        place = 3 + waits
        for tile_ms, width, kept in lengths:
            self._lengths.append(_Length(tile_ms, width, kept, place))
            place = self._lengths[-1].end
        self._plan = [(length.tile_ms, length.place, length.end, length.size) for length in self._lengths]  # a tuple is quicker
        self._head = struct.Struct("<qBB" + "q" * waits + "".join(f"HH{width}d" for _, width, _ in lengths))
        self._head_size = _CRC.size + self._head.size

    def new(self) -> EntityState:
        """The state of an entity that has seen nothing."""
        return EntityState(len(self._lengths))

    def open(self, state: EntityState, r: int, index: int, slots: list[float]) -> None:
        """Closes the open tile of a length and opens a newer one."""
        closed, slots_closed, length = state.index[r], state.slots[r], self._lengths[r]
        state.index[r], state.slots[r] = index, slots
        if closed < index - length.kept:  # and so is every tile before it
            if state.count[r]:
                state.rows[r], state.count[r], state.changed, state.rows_crc = bytearray(), 0, None, None
            return
        n, size = state.count[r], length.size
        if (n + 1) * size > len(state.rows[r]):
            n = self._make_room(state, r)
        length.pack_into(state.rows[r], n * size, closed & _LOW, *slots_closed)
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
        if (n + 1) * size > len(state.rows[r]):
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
            state.rows[r], state.count[r] = rows, n
        free = max(n // 6, min(8, sum(state.count) // 6), 1)
        rows.extend(bytes((n + free) * length.size - len(rows)))
        state.changed = None
        return n

    def encode(self, state: EntityState) -> bytes:
        """The value, whole."""
        return b"".join((self._encode_head(state), *state.rows))

    def write(self, state: EntityState) -> bytes | Patch:
        """What has to be written for the stored value to become `encode(state)`; it then counts as written."""
        head = self._encode_head(state)
        length = len(head) + sum(map(len, state.rows))
        changed, before = state.changed, state.length
        state.changed, state.length = [], length
        if changed is None or length != before or length < PATCH_BYTES:
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
        fields: list[Any] = [state.newest, FORMAT, len(state.ids)]
        if self._waits:
            fields.append(state.passed)
        for length, count, rows, slots in zip(self._lengths, state.count, state.rows, state.slots, strict=True):
            fields += count, len(rows) // length.size
            fields += slots
        rest = b"".join((self._head.pack(*fields), *state.ids))
        if state.rows_crc is None:
            state.rows_crc = 0
            for rows in state.rows:
                state.rows_crc = zlib.crc32(rows, state.rows_crc)
        return _CRC.pack(zlib.crc32(rest, state.rows_crc)) + rest

    def decode(self, value: bytes) -> EntityState:
        """The state of a stored value. Raises CorruptState when its checksum or length does not fit."""
        fields, start = self._open(value)
        state, newest = EntityState(0), fields[0]
        state.newest, state.passed, state.changed, state.length = newest, self._passed(fields), [], len(value)
        if fields[2]:
            state.ids = [value[i : i + 8] for i in range(start - 8 * fields[2], start, 8)]
        state.rows_crc = None if start < len(value) else 0
        count, index, slots, rows = state.count, state.index, state.slots, state.rows
        for tile_ms, place, end, size in self._plan:
            count.append(fields[place])
            index.append(newest // tile_ms if tile_ms else 0)
            slots.append([*fields[place + 2 : end]])
            begun, start = start, start + fields[place + 1] * size
            rows.append(bytearray(value[begun:start]) if start > begun else bytearray())
        return state

    def _passed(self, fields: tuple[Any, ...]) -> int:
        return int(fields[3]) if self._waits else NEVER

    def _open(self, value: bytes) -> tuple[tuple[Any, ...], int]:
        """The fields of the head, and where the rows begin."""
        try:
            (crc,), fields = _CRC.unpack_from(value), self._head.unpack_from(value, 4)
        except struct.error:
            raise CorruptState(f"view {self._view!r}: a stored value of {len(value)} bytes is cut short") from None
        start = end = self._head_size + 8 * fields[2]
        for _, place, _, size in self._plan:
            end += size * fields[place + 1]
        if fields[1] != FORMAT or len(value) != end:
            raise CorruptState(f"view {self._view!r}: a stored value of {len(value)} bytes has the wrong length or format")
        if crc != zlib.crc32(value[4:start], zlib.crc32(value[start:])):
            raise CorruptState(f"view {self._view!r}: a stored value fails its checksum")
        return fields, start

    def read(self, value: bytes) -> tuple[int, int, list[TileRows]]:
        """Newest event time, `passed`, and tiles of a stored value, by length. Raises CorruptState."""
        fields, start = self._open(value)
        tiles = []
        for length in self._lengths:
            (count, capacity), index = fields[length.place : length.place + 2], length.open_index(fields[0])
            rows = np.frombuffer(value, length.dtype, count, start)
            tiles.append(TileRows(index, fields[length.place + 2 : length.end], rows["slots"], _ages(rows, index)))
            start += capacity * length.size
        return fields[0], self._passed(fields), tiles

    def view(self, state: EntityState) -> Iterator[TileRows]:
        """The tiles of a state, by length."""
        for r, length in enumerate(self._lengths):
            rows = np.frombuffer(state.rows[r], length.dtype, state.count[r])
            yield TileRows(state.index[r], state.slots[r], rows["slots"], _ages(rows, state.index[r]))


def _ages(rows: npt.NDArray[Any], index: int) -> npt.NDArray[np.uint32]:
    """How many tiles each row lies before `index`, newest first."""
    ages: npt.NDArray[np.uint32] = np.uint32(index & _LOW) - rows["low"][::-1]
    return ages
