"""The kernel: how an event changes the state of one entity in one view, and how features are read from it.

Streaming, backfill, training sets, audit and request-time reads all run this code. It knows no Kafka, no Redis and no clock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from tidemill.declarations import Feature, FeatureView
from tidemill.declarations.aggregations import Value
from tidemill.declarations.expressions import number_of
from tidemill.declarations.slots import NewestTime, Slot
from tidemill.declarations.windows import EACH_MS, Grid, Window, horizon_ms
from tidemill.kernel.packed import FORMAT, ID_BYTES, NEVER, NEWEST, EntityState, Packing, TileRows
from tidemill.kernel.recent import Recent, Turn
from tidemill.kernel.side import SidePacking
from tidemill.kernel.tiles import Held, Open, TileLayout, compile_fold


class Applied(IntEnum):
    """What became of an event."""

    FOLDED = 0
    CORRECTED = 1  # folded, although older than the entity's newest event
    DUPLICATE = 2
    LATE = 3  # beyond the horizon: not folded
    ERASED = 4  # not folded: it erased its entity


CLOCKS_MS = 5_000
"""The clocks of two machines may differ by so much: a moment that lies no further before an entity's newest event is that of the event."""
_FOLDED, _CORRECTED = Applied.FOLDED, Applied.CORRECTED  # to look one up in the enum costs as much as to fold a slot
NO_OTHERS: Mapping[int, list[float] | str] = MappingProxyType({})
_ANY_TIME = Slot(NewestTime(), None)


class Reading(NamedTuple):
    """Features of one entity at one time. `values`: in the order of the view, NaN where there is no value; `newest_ms`: time of the newest
    event (None: all events of the entity still wait for their time, or the entity is erased); `others`: by place, the values that are no numbers but lists or texts,
    which are NaN in `values`. `complete`: for each feature, False if the state cannot tell: it no longer has all tiles of the window, because the time
    asked for lies too far back; or the window ends in a tile that may have later events; or the view was not yet fed when the window began."""

    values: list[float]
    newest_ms: int | None
    complete: list[bool]
    others: Mapping[int, list[float] | str] = NO_OTHERS

    def value(self, i: int) -> Value:
        """The value of the feature at a place: a number, a list or a text."""
        return self.others[i] if i in self.others else self.values[i]


class FeatureRead(NamedTuple):
    """How a feature is read from a merged tile. `feature`: its place among the view's features; `places`: the places of its slots, whose
    values `read` takes; `as_ages`: the slots hold times, and `read` takes their ages in ms instead."""

    feature: int
    read: Callable[..., Any]
    places: list[int]
    as_ages: bool


class Merged(NamedTuple):
    """One window and the features that are read from it. `others`: features that are no numbers or need side values; `numbers`: all others.
    `resolution`: which length of tiles the window has. `since_ms`: from when on events have the fields of these features."""

    resolution: int
    window: Window
    since_ms: int
    numbers: list[FeatureRead]
    others: list[FeatureRead]


class _Resolution:
    """The tiles of one grid: their layout, and how many are kept before the newest tile.

    The newest tile may lie `ahead_ms` in the future, and the tiles that the present reads must still be kept. So that many more are kept.
    """

    def __init__(self, grid: Grid, features: Sequence[Feature], view: FeatureView, extra: Sequence[Slot], nullable: set[str]) -> None:
        self.grid = grid
        slots = [slot for feature in features for slot in feature.aggregation.slots]
        self.layout = TileLayout([*slots, *extra], view.columns, nullable)
        self.kept_tiles = grid.tiles(max(feature.window.reach_ms for feature in features) + (view.ahead_ms or 0))


class ViewKernel:
    """All that the fold and the read need to know of a view, computed once.

    `lacking`: fields that some events lack although they may not be null, since they are older than the field. An event counts for a column
    only if it has all fields of the column. The kernel of a view that events may erase is an `_ErasingKernel`; others pay nothing for it.
    """

    def __new__(cls, view: FeatureView, _lacking: Collection[str] = ()) -> Self:
        """A kernel of the class that the view needs."""
        kind: Any = cls if view.erase is None else _ErasingKernel
        made: Self = super().__new__(kind)
        return made

    def __init__(self, view: FeatureView, lacking: Collection[str] = ()) -> None:
        self.view = view
        nullable = {name for name in view.value_fields if view.source.nullable(name)}.union(lacking)
        by_grid: dict[Grid, list[Feature]] = {}
        for feature in view.served:
            by_grid.setdefault(feature.window.grid, []).append(feature)
        grids = sorted(by_grid, key=lambda grid: grid.written_ms)
        self._erases = None if view.erasure is None else number_of(view.erasure)
        self._waits, self._ids_bytes = view.ahead_ms is not None, ID_BYTES * view.last_ids
        self.resolutions = [
            _Resolution(grid, by_grid[grid], view, [_ANY_TIME] if self._waits and not i else [], nullable) for i, grid in enumerate(grids)
        ]
        self.horizon_ms = horizon_ms((feature.window for feature in view.served), view.ahead_ms or 0)
        lengths = [(res.grid, res.layout.width, res.kept_tiles) for res in self.resolutions]
        sides = [len(res.layout.sides) for res in self.resolutions]
        self.packing = SidePacking(view.name, lengths, sides, self._waits) if any(sides) else Packing(view.name, lengths, self._waits)
        tiles = [Open(res.layout, self.packing.first(r), self.packing.first_side(r)) for r, res in enumerate(self.resolutions)]
        self._folds = [
            (r, res.grid.tile_ms, res.grid.origin_ms, res.layout.empty, compile_fold([tiles[r]], view.columns))
            for r, res in enumerate(self.resolutions)
        ]
        self._fold_open = compile_fold(tiles, view.columns)
        self._share(_shared_grid(grids))
        self.encode, self.write = self.packing.encode, self.packing.write
        self.decode, self.reopen = self.packing.decode, self.packing.reopen
        self.plan = self._plan_reads(view.served)
        self.definition = self._fingerprint()

    def new_state(self) -> EntityState:
        """The state of an entity without events."""
        return self.packing.new()

    def new_recent(self, turns: Sequence[Turn] = ()) -> Recent | None:
        """The memory of a log, empty in each of its parts; None where ids are remembered only by their number."""
        return None if self.view.dedupe_ms is None else Recent(self.view.dedupe_ms, turns)

    def _share(self, grid: Grid) -> None:
        """Remembers a grid with origin 0. Events in one tile of it share the tiles of every length, so one function folds into all."""
        self._shared_ms = grid.tile_ms

    def _plan_reads(self, features: Sequence[Feature]) -> list[Merged]:
        plan: dict[tuple[Window, int], Merged] = {}
        grids = [resolution.grid for resolution in self.resolutions]
        for i, feature in enumerate(features):
            r, aggregation = grids.index(feature.window.grid), feature.aggregation
            layout = self.resolutions[r].layout
            places = [place for slot in aggregation.slots for place in layout.places(slot)]
            since_ms = self.view.since_ms(feature)
            merged = plan.setdefault((feature.window, since_ms), Merged(r, feature.window, since_ms, [], []))
            plain = aggregation.gives is float and max(places) < layout.width
            (merged.numbers if plain else merged.others).append(FeatureRead(i, aggregation.read, places, aggregation.as_ages))
        return list(plan.values())

    @property
    def definition_text(self) -> str:
        """The text whose fingerprint is `definition`. It has all that stored tiles depend on: source, entity, tiles, slots, what is kept,
        which events feed the view when these are not all, and which ones erase when some do.

        Every partition and every model has the fingerprint, so the form of this text is fixed: a renamed class must not change it.
        """
        view = self.view
        tiles = ", ".join(
            f"({res.grid.written_ms}, {res.kept_tiles}, {_slots_text(res.layout.slots + res.layout.sides)})" for res in self.resolutions
        )
        where = "" if view.where is None else f", where {view.where!r}"
        erase = "" if view.erase is None else f", erase {view.erase!r}"
        remembered = view.dedupe if view.dedupe_ms is None else f"{view.last_ids} and {view.dedupe_ms} ms"
        return f"[{view.source.name!r}, {view.key.field!r}, [{tiles}], {remembered}, {view.ahead_ms}, {FORMAT}{where}{erase}]"

    def _fingerprint(self) -> str:
        """A fingerprint that changes when stored tiles would get another meaning."""
        return hashlib.sha256(self.definition_text.encode()).hexdigest()[:16]

    def apply(self, state: EntityState, time_ms: int, event_id: str | None, values: object) -> Applied:
        """Folds one event into an entity's state. `values` has one attribute per field of the view."""
        head = state.head
        newest = head[NEWEST]
        if time_ms < newest - self.horizon_ms:
            return Applied.LATE
        ids_bytes = self._ids_bytes
        if event_id is not None and ids_bytes:
            digest, ids = hashlib.blake2b(event_id.encode(), digest_size=ID_BYTES).digest(), state.ids
            if _holds(ids, digest):
                return Applied.DUPLICATE
            state.ids = (ids if len(ids) < ids_bytes else ids[ID_BYTES:]) + digest
        shared_ms = self._shared_ms
        if time_ms // shared_ms == newest // shared_ms:  # the event belongs to the open tile of every length
            self._fold_open(head, time_ms, values)
        else:
            self._fold_tiles(state, newest, time_ms, values)
        if time_ms < newest:
            return _CORRECTED
        head[NEWEST] = time_ms
        return _FOLDED

    def erases(self, values: object) -> bool:
        """Whether an event with these values erases its entity."""
        return self._erases is not None and bool(self._erases(values))

    def _fold_tiles(self, state: EntityState, newest: int, time_ms: int, values: object) -> None:
        """Folds an event of which some tiles are not open. `newest`: time of the newest event, whose tiles are open.

        For each length: a newer tile is opened, an older tile is corrected.
        """
        for r, tile_ms, origin_ms, empty, fold in self._folds:
            index, last = (time_ms - origin_ms) // tile_ms, (newest - origin_ms) // tile_ms
            if index < last:
                self._fold_late(state, r, last, index, time_ms, values)
                continue
            if index > last:
                if self._waits and not r and newest != NEVER:
                    self._let_pass(state, index)
                self.packing.open(state, r, last, index, empty)
            fold(state.head, time_ms, values)

    def _fold_late(self, state: EntityState, r: int, last: int, index: int, time_ms: int, values: object) -> None:
        """Corrects the tile `index`, which is older than the open tile `last`. A tile that no window reads from now on is left out."""
        resolution = self.resolutions[r]
        if index < last - resolution.kept_tiles:
            if self._waits and not r:
                self.packing.note_passed(state, time_ms)
            return
        place, found = self.packing.row(state, r, index)
        tile: list[Held] = list(resolution.layout.blank) if found is None else found
        resolution.layout.fold(tile, time_ms, values)
        if found is None:
            self.packing.insert(state, r, index, tile)
        else:
            self.packing.replace(state, r, place, index, tile)

    def _let_pass(self, state: EntityState, index: int) -> None:
        """Notes the newest event of the tiles that windows no longer reach once the tile `index` is open."""
        tiles = next(self.packing.view(state))
        self.packing.note_passed(state, self._newest_until(tiles, index - self.resolutions[0].kept_tiles - 1))

    def _newest_until(self, tiles: TileRows, index: int) -> int:
        """Time of the newest event in the finest tiles up to `index`, in ms; NEVER if there is none."""
        begun = tiles.select(NEVER, index)
        return int(begun[-1][self.resolutions[0].layout.places(_ANY_TIME)[0]]) if len(begun) else NEVER

    def read(self, value: bytes, time_ms: int, since_ms: int = 0) -> Reading:
        """The view's features from a stored value, as of `time_ms`. Windows are merged here, so they empty as time passes.

        A window w with tile r covers the tiles floor((t - w) / r) to floor(t / r). Raises CorruptState.

        `since_ms`: since when the view is fed (see `Fence.since`). A window is complete once all its tiles begin at that moment or after
        it; a whole life never is.
        """
        return self._merge(*self.packing.read(value), time_ms, since_ms)

    def read_state(self, state: EntityState, time_ms: int, since_ms: int = 0) -> Reading:
        """`read(encode(state), time_ms)` without checksum and copy: training reads every state many times."""
        return self._merge(state.newest, self.packing.passed(state.head), list(self.packing.view(state)), time_ms, since_ms)

    def _merge(self, newest: int, passed: int, tiles: Sequence[TileRows], time_ms: int, since_ms: int) -> Reading:
        if newest == NEVER:
            return Reading([math.nan] * len(self.view.served), None, [True] * len(self.view.served))
        if time_ms < newest <= time_ms + CLOCKS_MS and not self._waits:
            time_ms = newest
        early = newest > time_ms and not self._waits
        values, complete = [math.nan] * len(self.view.served), [True] * len(self.view.served)
        found = dict[int, list[float] | str]()
        for r, window, fields_since_ms, reads, others in self.plan:
            resolution, rows = self.resolutions[r], tiles[r]
            first, last, whole = window.at(time_ms, newest, rows.newest - resolution.kept_tiles)
            if early and window.bounded and rows.holds(last):
                whole = False  # the tile cannot be cut: some of its events may have come after the moment
            if since_ms or fields_since_ms:
                whole = whole and window.bounded and window.grid.start_ms(first) >= max(since_ms, fields_since_ms)
            merged = resolution.layout.merge(rows.select(first, last))
            for i, read, places, as_ages in reads:
                if as_ages:
                    # an event may lie ahead of the question, in a tile that has begun: it is not younger than 0
                    values[i] = read(*[max(time_ms - merged[place], 0.0) for place in places])
                else:
                    values[i] = read(*[merged[place] for place in places])
                complete[i] = whole
            if others:
                held = [*merged, *resolution.layout.merge_sides(rows.select_sides(first, last))]
                for i, other, places, _ in others:
                    complete[i], value = whole, other(*[held[place] for place in places])
                    if isinstance(value, list | str):
                        found[i] = value
                    else:
                        values[i] = value
        seen = self._newest_by(time_ms, passed, tiles[0]) if self._waits and newest > time_ms else newest
        return Reading(values, seen, complete, found)

    def _newest_by(self, time_ms: int, passed: int, tiles: TileRows) -> int | None:
        """Time of the newest event that a reading at `time_ms` sees: from the finest tiles up to then, or else from those out of reach."""
        newest = max(passed, self._newest_until(tiles, self.resolutions[0].grid.index(time_ms)))
        return min(newest, time_ms) if newest != NEVER else None


def _shared_grid(grids: Sequence[Grid]) -> Grid:
    """A grid with origin 0, each tile of which lies within one tile of every grid."""
    finest = min(grids, key=lambda grid: grid.tile_ms)
    return finest if not finest.origin_ms and all(finest.divides(grid) for grid in grids) else EACH_MS


class _ErasingKernel(ViewKernel):
    """The kernel of a view with `erase`."""

    def apply(self, state: EntityState, time_ms: int, event_id: str | None, values: object) -> Applied:
        """As in `ViewKernel`, unless the event erases: then the state is that of a new entity with the recent ids. It is never too late."""
        if not self.erases(values):
            return super().apply(state, time_ms, event_id, values)
        new = self.new_state()
        new.ids = state.ids
        if super().apply(new, time_ms, event_id, values) is Applied.DUPLICATE:
            return Applied.DUPLICATE
        state.ids = new.ids
        self.packing.clear(state)
        return Applied.ERASED


def _slots_text(slots: Sequence[Slot]) -> str:
    """The slots in the form of a definition's text: that of a Python tuple, so a comma follows a single slot."""
    texts = [f"Slot(kind={slot.kind.name!r}, column={slot.column!r})" for slot in slots]
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def _holds(ids: bytes, digest: bytes) -> bool:
    """Whether this id is among the ids. A match that spans two ids does not count."""
    place = ids.find(digest)
    while place > 0 and place % ID_BYTES:
        place = ids.find(digest, place + 1)
    return place >= 0
