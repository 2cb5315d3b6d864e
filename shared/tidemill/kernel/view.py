"""The kernel: how an event changes the state of one entity in one view, and how features are read from it.

Streaming, backfill, training sets, audit and request-time reads all run this code. It knows no Kafka, no Redis and no clock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from tidemill.declarations import Feature, FeatureView
from tidemill.declarations.aggregations import Age
from tidemill.declarations.slots import Slot
from tidemill.durations import parse_ms
from tidemill.kernel.packed import FORMAT, ID_BYTES, NEVER, NEWEST, PASSED, EntityState, Packing, TileRows
from tidemill.kernel.tiles import Matrix, TileLayout, compile_fold


class Applied(IntEnum):
    """What became of an event."""

    FOLDED = 0
    CORRECTED = 1  # folded too, but older than the entity's newest event
    DUPLICATE = 2
    LATE = 3  # beyond the horizon: not folded


_FOLDED, _CORRECTED = Applied.FOLDED, Applied.CORRECTED  # looking them up in the enum costs as much as folding a slot
_ANY_TIME = Slot("last_time", None)


class Reading(NamedTuple):
    """Features of one entity at one time: values in the order of the view (NaN: none), the newest event's time in ms (None: all of its
    events still wait for their time), and whether each value is complete (False: tiles it needs were dropped, since the time asked for
    lies too far back)."""

    values: list[float]
    newest_ms: int | None
    complete: list[bool]


class _Window(NamedTuple):
    """One window and the features read from it: place among the view's features, read, places of its slots, whether it is an age."""

    resolution: int
    window_ms: int
    features: list[tuple[int, Callable[..., float], list[int], bool]]


class _Resolution:
    """The tiles of one length: their layout and how long they are kept. `tile_ms` 0: one tile for the entity's whole life.

    The newest tile may lie `ahead_ms` in the future, and what the present reads must be kept nevertheless.
    """

    def __init__(self, tile_ms: int, features: Sequence[Feature], view: FeatureView, extra: Sequence[Slot]) -> None:
        self.tile_ms = tile_ms
        nullable = {name for name in view.value_fields if view.source.nullable(name)}
        slots = [slot for feature in features for slot in feature.aggregation.slots]
        self.layout = TileLayout([*slots, *extra], view.columns, nullable)
        self.longest_ms = max(feature.window_ms or 0 for feature in features)
        self.kept_tiles = -(-(self.longest_ms + (view.ahead_ms or 0)) // tile_ms) if tile_ms else 0


class ViewKernel:
    """Everything about a view that the fold and the read need, made once."""

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        by_tile: dict[int, list[Feature]] = {}
        for feature in view.served:
            by_tile.setdefault(feature.tile_ms, []).append(feature)
        self._waits = view.ahead_ms is not None
        self.resolutions = [
            _Resolution(tile_ms, by_tile[tile_ms], view, [_ANY_TIME] if self._waits and not i else [])
            for i, tile_ms in enumerate(sorted(by_tile))
        ]
        longest_ms = max(resolution.longest_ms for resolution in self.resolutions)
        self.horizon_ms = longest_ms + (view.ahead_ms or 0) if longest_ms else None
        self.packing = Packing(view.name, [(res.tile_ms, res.layout.width, res.kept_tiles) for res in self.resolutions], self._waits)
        tiles = [(res.layout, self.packing.first(r)) for r, res in enumerate(self.resolutions)]
        self._folds = [(r, res.tile_ms, compile_fold([tiles[r]], view.columns)) for r, res in enumerate(self.resolutions)]
        self._fold_open = compile_fold(tiles, view.columns)
        self._nested_ms = self._shortest_if_nested()
        self.encode, self.write = self.packing.encode, self.packing.write
        self.decode, self.reopen = self.packing.decode, self.packing.reopen
        self._windows = self._plan_windows(view.served)
        self._finest_ms = parse_ms(view.tile)
        self.definition = self._fingerprint()

    def new_state(self) -> EntityState:
        """The state of an entity that has seen nothing."""
        return self.packing.new()

    def _shortest_if_nested(self) -> int:
        """The shortest length of tiles when each longer one is a multiple of it, so that events in one such tile share those of every length;
        else 0."""
        lengths = [resolution.tile_ms for resolution in self.resolutions if resolution.tile_ms]
        return lengths[0] if lengths and not any(length % lengths[0] for length in lengths) else 0

    def _plan_windows(self, features: Sequence[Feature]) -> list[_Window]:
        windows: dict[tuple[int, int], _Window] = {}
        tiles = [resolution.tile_ms for resolution in self.resolutions]
        for i, feature in enumerate(features):
            r, window_ms = tiles.index(feature.tile_ms), feature.window_ms or 0
            window = windows.setdefault((r, window_ms), _Window(r, window_ms, []))
            places = [self.resolutions[r].layout.place(slot) for slot in feature.aggregation.slots]
            window.features.append((i, feature.aggregation.read, places, isinstance(feature.aggregation, Age)))
        return list(windows.values())

    @property
    def definition_text(self) -> str:
        """What `definition` is the fingerprint of: all that stored tiles depend on, which is source, entity, tiles and their slots, what is kept.

        It is stored beside every partition and every model, so its form is fixed, whatever the classes it speaks of are called here.
        """
        view = self.view
        tiles = ", ".join(f"({res.tile_ms}, {res.kept_tiles}, {_slots_text(res.layout.slots)})" for res in self.resolutions)
        return f"[{view.source.name!r}, {view.key.field!r}, [{tiles}], {view.dedupe}, {view.ahead_ms}, {FORMAT}]"

    def _fingerprint(self) -> str:
        """Changes when stored tiles would mean something else."""
        return hashlib.sha256(self.definition_text.encode()).hexdigest()[:16]

    def apply(self, state: EntityState, time_ms: int, event_id: str | None, values: Any) -> Applied:
        """Folds one event into an entity's state. `values` has one attribute per field of the view."""
        head = state.head
        newest = head[NEWEST]
        if self.horizon_ms is not None and time_ms < newest - self.horizon_ms:
            return Applied.LATE
        if event_id is not None and self.view.dedupe:
            digest, ids = hashlib.blake2b(event_id.encode(), digest_size=ID_BYTES).digest(), state.ids
            if _holds(ids, digest):
                return Applied.DUPLICATE
            state.ids = (ids if len(ids) < ID_BYTES * self.view.dedupe else ids[ID_BYTES:]) + digest
        nested_ms = self._nested_ms
        if nested_ms and time_ms // nested_ms == newest // nested_ms:  # every open tile is that of this event
            self._fold_open(head, time_ms, values)
        else:
            self._fold_tiles(state, newest, time_ms, values)
        if time_ms < newest:
            return _CORRECTED
        head[NEWEST] = time_ms
        return _FOLDED

    def _fold_tiles(self, state: EntityState, newest: int, time_ms: int, values: Any) -> None:
        """Folds an event whose tiles are not all open, those of the event at `newest`: newer ones are opened, older ones corrected."""
        for r, tile_ms, fold in self._folds:
            index, last = (time_ms // tile_ms, newest // tile_ms) if tile_ms else (0, 0 if newest != NEVER else -1)
            if index < last:
                self._fold_late(state, r, last, index, time_ms, values)
                continue
            if index > last:
                if self._waits and not r and newest != NEVER:
                    self._let_pass(state, index)
                self.packing.open(state, r, last, index, self.resolutions[r].layout.empty)
            fold(state.head, time_ms, values)

    def _fold_late(self, state: EntityState, r: int, last: int, index: int, time_ms: int, values: Any) -> None:
        """Corrects a tile older than the open one, `last`; a tile that no window reads from here on is left out."""
        resolution = self.resolutions[r]
        if index < last - resolution.kept_tiles:
            if self._waits and not r:
                state.head[PASSED] = max(state.head[PASSED], time_ms)
            return
        place, found = self.packing.row(state, r, index)
        tile = list(resolution.layout.empty) if found is None else found
        resolution.layout.fold(tile, time_ms, values)
        if found is None:
            self.packing.insert(state, r, index, tile)
        else:
            self.packing.replace(state, r, place, index, tile)

    def _let_pass(self, state: EntityState, index: int) -> None:
        """Notes the newest event among the tiles that get out of reach when the tile `index` opens."""
        begun = self._newest_until(next(self.packing.view(state)), index - self.resolutions[0].kept_tiles - 1)
        state.head[PASSED] = max(state.head[PASSED], begun)

    def _newest_until(self, tiles: TileRows, index: int) -> int:
        """Time of the newest event in the finest tiles up to `index`."""
        begun = tiles.select(NEVER, index)
        return int(begun[-1, self.resolutions[0].layout.place(_ANY_TIME)]) if len(begun) else NEVER

    def read(self, value: bytes, time_ms: int) -> Reading:
        """The view's features from a stored value, as of `time_ms`: windows are merged here, and empty as time passes.

        A window w with tile r covers the tiles floor((t - w) / r) to floor(t / r). Raises CorruptState.
        """
        return self._merge(*self.packing.read(value), time_ms)

    def read_state(self, state: EntityState, time_ms: int) -> Reading:
        """`read(encode(state), time_ms)`, without the checksum and the copy of everything: training reads every state many times."""
        return self._merge(state.newest, self.packing.passed(state.head), list(self.packing.view(state)), time_ms)

    def _merge(self, newest: int, passed: int, tiles: Sequence[TileRows], time_ms: int) -> Reading:
        values, complete = [math.nan] * len(self.view.served), [True] * len(self.view.served)
        least_age_ms = 0.0 if self._waits else -math.inf  # an event whose tile has begun but whose own time has not
        for r, window_ms, features in self._windows:
            selected, whole = self._select(self.resolutions[r], tiles[r], window_ms, time_ms)
            whole = whole if window_ms else newest <= time_ms + self._finest_ms
            merged = self.resolutions[r].layout.merge(selected)
            for i, read, places, is_age in features:
                values[i] = read(max(time_ms - merged[places[0]], least_age_ms)) if is_age else read(*[merged[place] for place in places])
                complete[i] = whole
        return Reading(values, self._newest_by(time_ms, passed, tiles[0]) if self._waits and newest > time_ms else newest, complete)

    def _newest_by(self, time_ms: int, passed: int, tiles: TileRows) -> int | None:
        """Time of the newest event that a reading sees: of those in the finest tiles up to its time, else of those out of reach."""
        newest = max(passed, self._newest_until(tiles, time_ms // self.resolutions[0].tile_ms))
        return min(newest, time_ms) if newest != NEVER else None

    @staticmethod
    def _select(resolution: _Resolution, tiles: TileRows, window_ms: int, time_ms: int) -> tuple[Matrix, bool]:
        """The tiles a window covers at `time_ms`, and whether none that it needs has been dropped."""
        if not resolution.tile_ms:
            return tiles.select(0, 0), True
        oldest = (time_ms - window_ms) // resolution.tile_ms
        return tiles.select(oldest, time_ms // resolution.tile_ms), oldest >= tiles.newest - resolution.kept_tiles


def _slots_text(slots: Sequence[Slot]) -> str:
    """Slots as they stand in the text of a definition; a single one has a comma after it."""
    texts = [f"Slot(kind={slot.kind!r}, column={slot.column!r})" for slot in slots]
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def _holds(ids: bytes, digest: bytes) -> bool:
    """Whether one of the ids is this one; what is found across two ids does not count."""
    place = ids.find(digest)
    while place > 0 and place % ID_BYTES:
        place = ids.find(digest, place + 1)
    return place >= 0
