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
from tidemill.kernel.tiles import Matrix

FORMAT = 3
NEVER = -(2**62)
PATCH_BYTES = 1024  # a shorter value is written whole: that costs the store less than looking at its length and changing pieces
NEWEST, IDS, PASSED = 0, 2, 3  # places in a head, the format being at 1; the last one is there only if events may wait
ID_BYTES = 8
_CRC_BYTES = 4
_LOW = 0xFFFF_FFFF
_NO_ROWS = bytearray()  # never changed: rows that grow become another object


class EntityState:
    """The tiles of one entity. `head`: the numbers of its value's head but the checksum, hence the slots of the open tiles; `ids`: the
    recent ones, oldest first, each of ID_BYTES; `rows`: the closed tiles of each length, packed.

    `changed`: rows changed since the value was last written, by length and place (None: the whole value has to be written);
    `length`: how long the written value is. `rows_crc`: of all rows (None: not known).
    """

    __slots__ = ("changed", "head", "ids", "length", "rows", "rows_crc")

    head: list[Any]
    ids: bytes
    rows: list[bytearray]
    rows_crc: int | None
    changed: list[tuple[int, int]] | None
    length: int

    @property
    def newest(self) -> int:
        """Time of the newest event, in ms."""
        newest: int = self.head[NEWEST]
        return newest

    @property
    def recent_ids(self) -> list[str]:
        """The recent ids in hexadecimal, oldest first."""
        return [self.ids[i : i + ID_BYTES].hex() for i in range(0, len(self.ids), ID_BYTES)]


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
    """Tiles of one length: `kept` of them are in reach of a window. In a head the slots of the open one stand from `first` to `end`, at
    `count` how many rows are in use, and at `capacity` how many there are in all."""

    def __init__(self, tile_ms: int, width: int, kept: int, first: int, count: int, capacity: int) -> None:
        self.tile_ms, self.kept, self.first, self.end = tile_ms, kept, first, first + width
        self.count, self.capacity = count, capacity
        row = struct.Struct(f"<I{width}d")
        self.size, self.pack_into, self.unpack_from = row.size, row.pack_into, row.unpack_from
        self.dtype = np.dtype([("low", "<u4"), ("slots", "<f8", (width,))])

    def index(self, time_ms: int) -> int:
        """The index of the tile that a time belongs to."""
        return time_ms // self.tile_ms if self.tile_ms else 0

    def tiles(self, head: Sequence[Any], rows: npt.NDArray[Any]) -> TileRows:
        """The tiles of an entity: the open one in its head, and the closed ones."""
        index = self.index(head[NEWEST])
        return TileRows(index, head[self.first : self.end], rows["slots"], _ages(rows, index))


class Packing:
    """Packs the states of one view. `lengths`: of each length of tiles its milliseconds (0: one tile for ever), slots, and tiles kept.
    `waits`: whether events may wait for their time."""

    def __init__(self, view: str, lengths: Sequence[tuple[int, int, int]], waits: bool = False) -> None:
        self._view = view
        self._waits = waits
        n = len(lengths)
        self._count = PASSED + waits  # where rows in use, rows in all, and slots stand in a head
        self._capacity = self._count + n
        first = self._slots = self._capacity + n
        self._lengths: list[_Length] = []
        for r, (tile_ms, width, kept) in enumerate(lengths):
            self._lengths.append(_Length(tile_ms, width, kept, first, self._count + r, self._capacity + r))
            first += width
        self._head = struct.Struct(f"<qBB{'q' * waits}{2 * n}H{first - self._slots}d")
        self._sizes = [length.size for length in self._lengths]
        self._no_rows = [_NO_ROWS] * n
        self._new = [NEVER, FORMAT, 0, *[NEVER] * waits, *[0] * 2 * n, *[0.0] * (first - self._slots)]

    def new(self) -> EntityState:
        """The state of an entity that has seen nothing."""
        return self._state([*self._new], b"", 0)

    def _state(self, head: list[Any], ids: bytes, length: int) -> EntityState:
        """A state without closed tiles."""
        state = EntityState()
        state.head, state.ids, state.length = head, ids, length
        state.rows, state.rows_crc, state.changed = [*self._no_rows], 0, None
        return state

    def first(self, r: int) -> int:
        """Where in a head the slots of the open tile of a length begin."""
        return self._lengths[r].first

    def open(self, state: EntityState, r: int, closed: int, index: int, slots: list[float]) -> None:
        """Closes the open tile of a length, `closed`, and opens a newer one, with these slots; the time of its event is still to be noted."""
        length, head = self._lengths[r], state.head
        first, end, count = length.first, length.end, length.count
        closed_slots, head[first:end] = head[first:end], slots
        n = head[count]
        if closed < index - length.kept:  # and so is every tile before it
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

    def row(self, state: EntityState, r: int, index: int) -> tuple[int, list[float] | None]:
        """Where the closed tile `index` stands or would stand, and its slots."""
        length, newest = self._lengths[r], self._lengths[r].index(state.newest)
        ages, age = self._ages(state, r, newest), newest - index
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
        length, head = self._lengths[r], state.head
        n, size = head[length.count], length.size
        if n == head[length.capacity]:
            n = self._make_room(state, r, length.index(state.newest))
        (i, _), rows = self.row(state, r, index), state.rows[r]
        rows[(i + 1) * size : (n + 1) * size] = rows[i * size : n * size]
        length.pack_into(rows, i * size, index & _LOW, *slots)
        head[length.count], state.changed, state.rows_crc = n + 1, None, None

    def _ages(self, state: EntityState, r: int, index: int) -> npt.NDArray[np.uint32]:
        return _ages(np.frombuffer(state.rows[r], self._lengths[r].dtype, state.head[self._lengths[r].count]), index)

    def _make_room(self, state: EntityState, r: int, index: int) -> int:
        """Drops the closed tiles of a length that no window reaches from `index` on and adds free rows; returns how many are in use."""
        length, head, rows = self._lengths[r], state.head, state.rows[r]
        n: int = head[length.count]
        if n and (index - int.from_bytes(rows[:4], "little")) & _LOW > length.kept:
            dropped = int((self._ages(state, r, index) > length.kept).sum())
            rows, n = rows[dropped * length.size :], n - dropped
            head[length.count] = n
        free = max(n // 6, min(8, sum(head[self._count : self._capacity]) // 6), 1)
        state.rows[r], head[length.capacity], state.changed = rows + bytes(free * length.size), n + free, None
        return n

    def encode(self, state: EntityState) -> bytes:
        """The value, whole."""
        return b"".join((self._encode_head(state), *state.rows))

    def write(self, state: EntityState) -> bytes | Patch:
        """What has to be written for the stored value to become `encode(state)`; it then counts as written."""
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
        """The state of a stored value. Raises CorruptState when its checksum or length does not fit."""
        return self._take_apart(value, *self._open(value))

    def reopen(self, value: bytes) -> EntityState:
        """The state of a value that `encode` or `write` gave and that nobody else could touch: `decode` without looking for damage."""
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

    def passed(self, head: Sequence[Any]) -> int:
        """Time of the newest event whose tile of the first length is out of reach, kept where events may wait; NEVER where there is none."""
        return int(head[PASSED]) if self._waits else NEVER

    def _open(self, value: bytes) -> tuple[tuple[Any, ...], int]:
        """The numbers of the head, and where the rows begin."""
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
        """Where the rows end; -1 when more are said to be in use than there are."""
        if not any(head[self._count : self._slots]):  # most entities of most views have none
            return start
        counts, capacities = head[self._count : self._capacity], head[self._capacity : self._slots]
        return -1 if any(map(gt, counts, capacities)) else start + sum(map(mul, self._sizes, capacities))

    def read(self, value: bytes) -> tuple[int, int, list[TileRows]]:
        """Newest event time, `passed`, and tiles of a stored value, by length. Raises CorruptState."""
        head, start = self._open(value)
        tiles = []
        for length in self._lengths:
            rows = np.frombuffer(value, length.dtype, head[length.count], start)
            tiles.append(length.tiles(head, rows))
            start += head[length.capacity] * length.size
        return head[NEWEST], self.passed(head), tiles

    def view(self, state: EntityState) -> Iterator[TileRows]:
        """The tiles of a state, by length."""
        for r, length in enumerate(self._lengths):
            yield length.tiles(state.head, np.frombuffer(state.rows[r], length.dtype, state.head[length.count]))


def _ages(rows: npt.NDArray[Any], index: int) -> npt.NDArray[np.uint32]:
    """How many tiles each row lies before `index`, newest first."""
    ages: npt.NDArray[np.uint32] = np.uint32(index & _LOW) - rows["low"][::-1]
    return ages
