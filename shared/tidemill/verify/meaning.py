"""What a view's declaration means, from docs/features.md: its features by name, and which tiles a window is made of.

Nothing here asks the kernel or the plan that a view makes of itself: a fault there would otherwise be a fault here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tidemill.declarations import FeatureView
from tidemill.durations import parse_ms
from tidemill.verify.expressions import names_in

NO_WINDOW = ("first", "last", "last_k", "age")
"""Aggregates that are of the entity's whole life unless they say otherwise."""

CLOCKS_MS = 5_000
"""A moment that lies no further before the newest event than this is that of the event: clocks differ."""

_LIFETIME = "lifetime"
_LAST_IDS = 8  # that an entity remembers, however old, when ids are remembered for a time
_STEPS = ("5m", "15m", "1h", "6h", "1d")
_MOST_TILES = 168


@dataclass(frozen=True)
class MeantWindow:
    """A window. `length_ms` None: the entity's whole life, which has no tiles."""

    length_ms: int | None
    tile_ms: int


@dataclass(frozen=True)
class MeantFeature:
    """A feature. `word`: its aggregate; `column`: a field, a condition, or None; `text`: whether the column
    is a text; `most`: how many values a list has; `since_ms`: earlier events
    do not have its fields, so that a window that begins earlier has no value (0: they have)."""

    name: str
    word: str
    column: str | None
    text: bool
    window: MeantWindow
    most: int
    since_ms: int


class Meaning:
    """A view, read from its arguments alone."""

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        self.ahead_ms = None if view.ahead is None else parse_ms(view.ahead)
        self.ttl_ms = None if view.ttl is None else parse_ms(view.ttl)
        self.finest_ms = parse_ms(view.tile)
        timed = isinstance(view.dedupe, str)
        self.last_ids = _LAST_IDS if timed else int(view.dedupe)
        self.memory_ms = parse_ms(str(view.dedupe)) if timed else None
        self.features = list(self._features())

    def _features(self) -> list[MeantFeature]:
        features, types = [], self.view.source.types
        for aggregation in self.view.features:
            word, column, most = aggregation.word, aggregation.column, int(getattr(aggregation, "n", 0))
            stem = aggregation.name or "_".join(filter(None, (f"last_{most}" if word == "last_k" else word, column)))
            windows = aggregation.windows or ((_LIFETIME,) if word in NO_WINDOW else tuple(self.view.windows))
            for window in windows:
                name = stem if window == _LIFETIME else f"{stem}_{window}"
                features.append(
                    MeantFeature(name, word, column, types.get(column or "") is str, self._window(window), most, self._since_ms(column))
                )
        return features

    def _since_ms(self, column: str | None) -> int:
        names = [
            name
            for read in (column, self.view.where, self.view.erase)
            if read is not None
            for name in names_in(read, self.view.source.fields)
        ]
        return max(self.view.since.get(name, 0) for name in [*self.view.key.fields, *names])

    def _window(self, window: str) -> MeantWindow:
        if window == _LIFETIME:
            return MeantWindow(None, self.finest_ms)
        length_ms = parse_ms(window)
        if window in self.view.tiles:
            return MeantWindow(length_ms, parse_ms(self.view.tiles[window]))
        steps = [self.finest_ms, *(step for step in map(parse_ms, _STEPS) if step > self.finest_ms)]
        return MeantWindow(length_ms, next((step for step in steps if length_ms <= step * _MOST_TILES), steps[-1]))

    @cached_property
    def bounded(self) -> list[MeantWindow]:
        """The windows that have a length, each once."""
        return list(dict.fromkeys(feature.window for feature in self.features if feature.window.length_ms is not None))

    @cached_property
    def horizon_ms(self) -> int | None:
        """How far before its entity's newest event an event may lie; None: any distance."""
        return max((window.length_ms or 0 for window in self.bounded), default=0) + (self.ahead_ms or 0) or None

    def kept_tiles(self, window: MeantWindow) -> int:
        """How many tiles before that of the newest event an entity keeps of a window's tiles: those of the longest window that is made of
        tiles of this length, and those that `ahead` adds."""
        longest = max(other.length_ms or 0 for other in self.bounded if other.tile_ms == window.tile_ms)
        return -(-(longest + (self.ahead_ms or 0)) // window.tile_ms)

    def time_sql(self, time: str, known: str) -> str:
        """When an event counts, in SQL over its time and the moment when it became known: never later than that, unless it may wait."""
        return f"least({time}, {known})" if self.ahead_ms is None else time

    @cached_property
    def waiting_ms(self) -> int:
        """The tile at whose beginning an event that lies ahead begins to be seen at all: the finest that any window has."""
        return min(window.tile_ms for window in self.bounded)
