"""The kernel: the state of one entity in one view, how an event changes it, how it is packed, and how features are read from it.

Streaming, backfill, training sets, audit and request-time reads all run this code. It knows no Kafka, no Redis and no clock.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.aggregations import Age
from tidemill.declarations import Feature, FeatureView
from tidemill.durations import parse_ms
from tidemill.errors import CorruptState
from tidemill.expressions import Column
from tidemill.tiles import Matrix, TileLayout

# An entity's value: CRC-32 of the rest, format, number of recent ids, spare, newest event time in ms; then the ids (8 bytes each),
# then per resolution the number of its tiles, then the tiles' slots, then their indices.
_HEADER = struct.Struct("<IBBHq")
_CRC, _HEAD = struct.Struct("<I"), struct.Struct("<BBHq")  # the header in two parts: the checksum comes last
_INDEX = struct.Struct("<q")
_FORMAT = 1
_NEVER = -(2**62)


class Applied(IntEnum):
    """What became of an event."""

    FOLDED = 0
    DUPLICATE = 1
    LATE = 2


_FOLDED = Applied.FOLDED  # looking it up in the enum costs as much as folding a slot


class EntityState:
    """The tiles of one entity: for each resolution the newest tile open (`index`, `slots`) and the older ones packed, in order of time."""

    __slots__ = ("ids", "index", "newest", "packed", "packed_index", "slots")

    def __init__(self, resolutions: int) -> None:
        self.newest = _NEVER
        self.ids: list[bytes] = []
        self.index = [_NEVER] * resolutions
        self.slots: list[list[float]] = [[]] * resolutions
        self.packed = [b""] * resolutions
        self.packed_index = [b""] * resolutions


class Reading(NamedTuple):
    """Features of one entity at one time: values in the order of the view (NaN: none), the newest event's time in ms, and whether
    each value is complete (False: tiles it needs were dropped, since the time asked for lies too far back)."""

    values: list[float]
    newest_ms: int
    complete: list[bool]


class _Window(NamedTuple):
    """One window and the features read from it: place among the view's features, read, places of its slots, whether it is an age."""

    resolution: int
    window_ms: int
    features: list[tuple[int, Callable[..., float], list[int], bool]]


_Tiles = tuple[Matrix, npt.NDArray[np.int64]]
"""The tiles of one resolution, in order of time, and their indices."""


class _Resolution:
    """The tiles of one length: their layout and how long they are kept. `tile_ms` 0: one tile for the entity's whole life."""

    def __init__(self, tile_ms: int, features: Sequence[Feature], columns: dict[str, Column], nullable: set[str]) -> None:
        self.tile_ms = tile_ms
        self.layout = TileLayout([slot for feature in features for slot in feature.aggregation.slots], columns, nullable)
        self.longest_ms = max(feature.window_ms or 0 for feature in features)
        self.kept_tiles = self.longest_ms // tile_ms if tile_ms else 0
        self.packer = struct.Struct(f"<{self.layout.width}d")


class ViewKernel:
    """Everything about a view that the fold and the read need, made once."""

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        nullable = {name for name in view.value_fields if view.source.nullable(name)}
        by_tile: dict[int, list[Feature]] = {}
        for feature in view.served:
            by_tile.setdefault(feature.tile_ms, []).append(feature)
        self.resolutions = [_Resolution(tile_ms, by_tile[tile_ms], view.columns, nullable) for tile_ms in sorted(by_tile)]
        self.horizon_ms = max(resolution.longest_ms for resolution in self.resolutions) or None
        self._folds = [(r, resolution.tile_ms, resolution.layout.fold) for r, resolution in enumerate(self.resolutions)]
        self._packs = [resolution.packer.pack for resolution in self.resolutions]
        self._windows = self._plan_windows(view.served)
        self._counts = struct.Struct(f"<{len(self.resolutions)}H{(-2 * len(self.resolutions)) % 8}x")
        self._finest_ms = parse_ms(view.tile)
        self.definition = self._fingerprint()

    def new_state(self) -> EntityState:
        """The state of an entity that has seen nothing."""
        return EntityState(len(self.resolutions))

    def _plan_windows(self, features: Sequence[Feature]) -> list[_Window]:
        windows: dict[tuple[int, int], _Window] = {}
        tiles = [resolution.tile_ms for resolution in self.resolutions]
        for i, feature in enumerate(features):
            r, window_ms = tiles.index(feature.tile_ms), feature.window_ms or 0
            window = windows.setdefault((r, window_ms), _Window(r, window_ms, []))
            places = [self.resolutions[r].layout.place(slot) for slot in feature.aggregation.slots]
            window.features.append((i, feature.aggregation.read, places, isinstance(feature.aggregation, Age)))
        return list(windows.values())

    def _fingerprint(self) -> str:
        """Changes when stored tiles would mean something else: source, entity, tiles and their slots, what is kept."""
        tiles = [(resolution.tile_ms, resolution.kept_tiles, resolution.layout.slots) for resolution in self.resolutions]
        parts = [self.view.source.name, self.view.key.field, tiles, self.view.dedupe, _FORMAT]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def apply(self, state: EntityState, time_ms: int, event_id: str | None, values: Any) -> Applied:
        """Folds one event into an entity's state. `values` has one attribute per field of the view."""
        if self.horizon_ms is not None and time_ms < state.newest - self.horizon_ms:
            return Applied.LATE
        if event_id is not None and self.view.dedupe:
            digest = hashlib.blake2b(event_id.encode(), digest_size=8).digest()
            if digest in state.ids:
                return Applied.DUPLICATE
            state.ids.append(digest)
            if len(state.ids) > self.view.dedupe:
                del state.ids[0]
        current, slots = state.index, state.slots
        for r, tile_ms, fold in self._folds:
            index = time_ms // tile_ms if tile_ms else 0
            if index < current[r]:
                self._fold_late(state, r, index, time_ms, values)
                continue
            if index > current[r]:
                self._open_tile(state, r, index)
            fold(slots[r], time_ms, values)
        if time_ms > state.newest:  # noqa: PLR1730 - a call costs more than the rest of this line
            state.newest = time_ms
        return _FOLDED

    def _open_tile(self, state: EntityState, r: int, index: int) -> None:
        """Packs the open tile, drops what no window can reach any more, and opens the tile `index`."""
        resolution = self.resolutions[r]
        if state.index[r] != _NEVER:
            state.packed[r] += resolution.packer.pack(*state.slots[r])
            state.packed_index[r] += _INDEX.pack(state.index[r])
            oldest_kept = index - resolution.kept_tiles
            if _INDEX.unpack_from(state.packed_index[r])[0] < oldest_kept:
                drop = int(np.frombuffer(state.packed_index[r], "<i8").searchsorted(oldest_kept))
                state.packed[r] = state.packed[r][drop * resolution.packer.size :]
                state.packed_index[r] = state.packed_index[r][8 * drop :]
        state.index[r] = index
        state.slots[r] = list(resolution.layout.empty)

    def _fold_late(self, state: EntityState, r: int, index: int, time_ms: int, values: Any) -> None:
        """Corrects an older tile; a tile that no window reads from here on is left out."""
        resolution = self.resolutions[r]
        if index < state.index[r] - resolution.kept_tiles:
            return
        indices = np.frombuffer(state.packed_index[r], "<i8")
        i = int(indices.searchsorted(index))
        size, packed = resolution.packer.size, state.packed[r]
        found = i < len(indices) and int(indices[i]) == index
        tile = list(resolution.packer.unpack_from(packed, i * size)) if found else list(resolution.layout.empty)
        resolution.layout.fold(tile, time_ms, values)
        state.packed[r] = packed[: i * size] + resolution.packer.pack(*tile) + packed[(i + found) * size :]
        if not found:
            old = state.packed_index[r]
            state.packed_index[r] = old[: 8 * i] + _INDEX.pack(index) + old[8 * i :]

    def encode(self, state: EntityState) -> bytes:
        """The entity's value as it is stored: whole and absolute."""
        counts = [len(indices) // 8 + 1 for indices in state.packed_index]
        parts = [_HEAD.pack(_FORMAT, len(state.ids), 0, state.newest), *state.ids, self._counts.pack(*counts)]
        for pack, packed, slots in zip(self._packs, state.packed, state.slots, strict=True):
            parts += packed, pack(*slots)
        for packed_index, index in zip(state.packed_index, state.index, strict=True):
            parts += packed_index, _INDEX.pack(index)
        rest = b"".join(parts)
        return _CRC.pack(zlib.crc32(rest)) + rest

    def decode(self, value: bytes) -> EntityState:
        """The state of a stored value. Raises CorruptState when its checksum or length does not fit."""
        newest, ids, counts, start, index_start = self._open(value)
        state = self.new_state()
        state.newest = newest
        state.ids = [value[_HEADER.size + 8 * i : _HEADER.size + 8 * i + 8] for i in range(ids)]
        for r, (resolution, count) in enumerate(zip(self.resolutions, counts, strict=True)):
            last, last_index = start + resolution.packer.size * (count - 1), index_start + 8 * (count - 1)
            state.packed[r], state.packed_index[r] = value[start:last], value[index_start:last_index]
            state.slots[r] = list(resolution.packer.unpack_from(value, last))
            (state.index[r],) = _INDEX.unpack_from(value, last_index)
            start, index_start = last + resolution.packer.size, last_index + 8
        return state

    def _open(self, value: bytes) -> tuple[int, int, tuple[int, ...], int, int]:
        """Newest time, number of ids, tiles per resolution, and where tiles and indices begin."""
        try:
            crc, version, ids, _, newest = _HEADER.unpack_from(value)
            counts = self._counts.unpack_from(value, _HEADER.size + 8 * ids)
        except struct.error:
            raise CorruptState(f"view {self.view.name!r}: a stored value of {len(value)} bytes is cut short") from None
        start = _HEADER.size + 8 * ids + self._counts.size
        index_start = start + sum(count * resolution.packer.size for count, resolution in zip(counts, self.resolutions, strict=True))
        if version != _FORMAT or len(value) != index_start + 8 * sum(counts):
            raise CorruptState(f"view {self.view.name!r}: a stored value of {len(value)} bytes has the wrong length or format")
        if crc != zlib.crc32(memoryview(value)[4:]):
            raise CorruptState(f"view {self.view.name!r}: a stored value fails its checksum")
        return newest, ids, counts, start, index_start

    def read(self, value: bytes, time_ms: int) -> Reading:
        """The view's features from a stored value, as of `time_ms`: windows are merged here, and empty as time passes.

        A window w with tile r covers the tiles floor((t - w) / r) to floor(t / r). Raises CorruptState.
        """
        newest, _, counts, start, index_start = self._open(value)
        tiles: list[_Tiles] = []
        for count, resolution in zip(counts, self.resolutions, strict=True):
            width = resolution.layout.width
            matrix: Matrix = np.frombuffer(value, "<f8", count * width, start).reshape(count, width)
            tiles.append((matrix, np.frombuffer(value, "<i8", count, index_start)))
            start, index_start = start + 8 * count * width, index_start + 8 * count
        return self._merge(newest, tiles, time_ms)

    def read_state(self, state: EntityState, time_ms: int) -> Reading:
        """`read(encode(state), time_ms)`, without the checksum and the copy of everything: training reads every state many times."""
        tiles: list[_Tiles] = []
        for r, resolution in enumerate(self.resolutions):
            packed = state.packed[r] + self._packs[r](*state.slots[r])
            matrix: Matrix = np.frombuffer(packed, "<f8").reshape(-1, resolution.layout.width)
            tiles.append((matrix, np.frombuffer(state.packed_index[r] + _INDEX.pack(state.index[r]), "<i8")))
        return self._merge(state.newest, tiles, time_ms)

    def _merge(self, newest: int, tiles: Sequence[_Tiles], time_ms: int) -> Reading:
        values, complete = [math.nan] * len(self.view.served), [True] * len(self.view.served)
        for r, window_ms, features in self._windows:
            selected, whole = self._select(self.resolutions[r], *tiles[r], window_ms, time_ms)
            whole = whole if window_ms else newest <= time_ms + self._finest_ms
            merged = self.resolutions[r].layout.merge(selected)
            for i, read, places, is_age in features:
                values[i] = read(time_ms - merged[places[0]]) if is_age else read(*[merged[place] for place in places])
                complete[i] = whole
        return Reading(values, newest, complete)

    @staticmethod
    def _select(
        resolution: _Resolution, matrix: Matrix, indices: npt.NDArray[np.int64], window_ms: int, time_ms: int
    ) -> tuple[Matrix, bool]:
        """The tiles a window covers at `time_ms`, and whether none that it needs has been dropped."""
        if not resolution.tile_ms:
            return matrix, True
        oldest, last, newest = (time_ms - window_ms) // resolution.tile_ms, time_ms // resolution.tile_ms, int(indices[-1])
        end = len(indices) if newest <= last else int(indices.searchsorted(last, "right"))
        return matrix[int(indices.searchsorted(oldest)) : end], oldest >= newest - resolution.kept_tiles
