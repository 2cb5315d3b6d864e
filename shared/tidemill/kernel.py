"""The kernel: how an event changes the state of one entity in one view, and how features are read from it.

Streaming, backfill, training sets, audit and request-time reads all run this code. It knows no Kafka, no Redis and no clock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from tidemill.aggregations import Age
from tidemill.declarations import Feature, FeatureView
from tidemill.durations import parse_ms
from tidemill.expressions import Column
from tidemill.packed import FORMAT, EntityState, Packing, TileRows
from tidemill.tiles import Matrix, TileLayout


class Applied(IntEnum):
    """What became of an event."""

    FOLDED = 0
    DUPLICATE = 1
    LATE = 2


_FOLDED = Applied.FOLDED  # looking it up in the enum costs as much as folding a slot


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


class _Resolution:
    """The tiles of one length: their layout and how long they are kept. `tile_ms` 0: one tile for the entity's whole life."""

    def __init__(self, tile_ms: int, features: Sequence[Feature], columns: dict[str, Column], nullable: set[str]) -> None:
        self.tile_ms = tile_ms
        self.layout = TileLayout([slot for feature in features for slot in feature.aggregation.slots], columns, nullable)
        self.longest_ms = max(feature.window_ms or 0 for feature in features)
        self.kept_tiles = self.longest_ms // tile_ms if tile_ms else 0


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
        self.packing = Packing(view.name, [(res.layout.width, res.kept_tiles) for res in self.resolutions])
        self.encode, self.write, self.decode = self.packing.encode, self.packing.write, self.packing.decode
        self._windows = self._plan_windows(view.served)
        self._finest_ms = parse_ms(view.tile)
        self.definition = self._fingerprint()

    def new_state(self) -> EntityState:
        """The state of an entity that has seen nothing."""
        return self.packing.new()

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
        parts = [self.view.source.name, self.view.key.field, tiles, self.view.dedupe, FORMAT]
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
                self.packing.open(state, r, index, list(self.resolutions[r].layout.empty))
            fold(slots[r], time_ms, values)
        if time_ms > state.newest:  # noqa: PLR1730 - a call costs more than the rest of this line
            state.newest = time_ms
        return _FOLDED

    def _fold_late(self, state: EntityState, r: int, index: int, time_ms: int, values: Any) -> None:
        """Corrects an older tile; a tile that no window reads from here on is left out."""
        resolution = self.resolutions[r]
        if index < state.index[r] - resolution.kept_tiles:
            return
        place, found = self.packing.row(state, r, index)
        tile = list(resolution.layout.empty) if found is None else found
        resolution.layout.fold(tile, time_ms, values)
        if found is None:
            self.packing.insert(state, r, index, tile)
        else:
            self.packing.replace(state, r, place, index, tile)

    def read(self, value: bytes, time_ms: int) -> Reading:
        """The view's features from a stored value, as of `time_ms`: windows are merged here, and empty as time passes.

        A window w with tile r covers the tiles floor((t - w) / r) to floor(t / r). Raises CorruptState.
        """
        newest, tiles = self.packing.read(value)
        return self._merge(newest, tiles, time_ms)

    def read_state(self, state: EntityState, time_ms: int) -> Reading:
        """`read(encode(state), time_ms)`, without the checksum and the copy of everything: training reads every state many times."""
        return self._merge(state.newest, list(self.packing.view(state)), time_ms)

    def _merge(self, newest: int, tiles: Sequence[TileRows], time_ms: int) -> Reading:
        values, complete = [math.nan] * len(self.view.served), [True] * len(self.view.served)
        for r, window_ms, features in self._windows:
            selected, whole = self._select(self.resolutions[r], tiles[r], window_ms, time_ms)
            whole = whole if window_ms else newest <= time_ms + self._finest_ms
            merged = self.resolutions[r].layout.merge(selected)
            for i, read, places, is_age in features:
                values[i] = read(time_ms - merged[places[0]]) if is_age else read(*[merged[place] for place in places])
                complete[i] = whole
        return Reading(values, newest, complete)

    @staticmethod
    def _select(resolution: _Resolution, tiles: TileRows, window_ms: int, time_ms: int) -> tuple[Matrix, bool]:
        """The tiles a window covers at `time_ms`, and whether none that it needs has been dropped."""
        if not resolution.tile_ms:
            return tiles.select(0, 0), True
        oldest = (time_ms - window_ms) // resolution.tile_ms
        return tiles.select(oldest, time_ms // resolution.tile_ms), oldest >= tiles.newest - resolution.kept_tiles
