"""Streams of events for property tests, views that use every aggregation, and a naive reference of what an entity accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hypothesis import strategies as st
from tests.oracles import aggregation_kinds, expected, in_window

from tidemill import Event, FeatureView
from tidemill.declarations import Feature
from tidemill.declarations.aggregations import Aggregation, Value
from tidemill.declarations.expressions import parse_column
from tidemill.declarations.last_k import LastK
from tidemill.declarations.slots import SideKind
from tidemill.declarations.windows import LIFETIME
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
COLUMNS = ("x", "y", "x > 0", "y * 2 < 10 or not flag")
WINDOWS = ("2m", "5m", "10m", "1h", LIFETIME)
TILES = ("1m", {"10m": "5m", "1h": "15m"})
ASKEW = ("2m", {"5m": "5m", "10m": "5m", "1h": "15m"})
"""The tile of a view and those of longer windows; of the second kind some do not begin where shorter ones do."""
DEDUPE = 3
FEW: dict[type[Aggregation], dict[str, Any]] = {LastK: {"n": 3}}
"""Arguments with which a short stream reaches the bounds of an aggregation."""

EVENT = Event(
    "test.happened", fields={"who": str, "at": int, "x": float | None, "y": int, "flag": bool, "word": str | None}, time="at", topic="test.happened"
)  # fmt: skip


@dataclass(frozen=True)
class Values:
    """The fields of one event that a view folds."""

    x: float | None
    y: int
    flag: bool
    word: str | None = None


@dataclass(frozen=True)
class Happening:
    """One event of one entity."""

    time_ms: int
    id: str | None
    values: Values


def features_of(kind: type[Aggregation]) -> list[Aggregation]:
    """One kind of aggregation over every column it can take."""
    columns: tuple[str | None, ...] = COLUMNS if kind.needs_column else (None, *COLUMNS)
    if kind.needs_truth:
        columns = tuple(column for column in COLUMNS if parse_column(column, EVENT.types).truth)
    made = kind(column="word")
    if made.gives is str:
        columns = ("word",)
    elif made.takes_text:
        columns = (*columns, "word")
    return [kind(column=column, name=f"{kind.__name__.lower()}_{i}", **FEW.get(kind, {})) for i, column in enumerate(columns)]


def view_of(features: Sequence[Aggregation], tiles: tuple[str, dict[str, str]] = TILES, erase: str | None = None) -> FeatureView:
    """A view of these features over windows of several tile sizes."""
    return FeatureView("tested", EVENT, "who", features, windows=WINDOWS, tile=tiles[0], tiles=tiles[1], dedupe=DEDUPE, erase=erase)


@cache
def everything(erase: str | None = None) -> ViewKernel:
    """The kernel of a view with every aggregation over every column."""
    return ViewKernel(view_of([feature for kind in aggregation_kinds() for feature in features_of(kind)], erase=erase))


@cache
def numbers(erase: str | None = None) -> ViewKernel:
    """The kernel of a view with every aggregation whose tiles are numbers alone, so that its values are patched."""
    features = [feature for kind in aggregation_kinds() for feature in features_of(kind)]
    return ViewKernel(view_of([f for f in features if not any(isinstance(slot.kind, SideKind) for slot in f.slots)], erase=erase))


def column_value(column: str | None, values: Values) -> float | str | None:
    """What a column is for one event, said again in plain Python."""
    x, y, flag = values.x, values.y, values.flag
    match column:
        case None | "y":
            return float(y)
        case "x":
            return x
        case "word":
            return values.word
        case "x > 0":
            return None if x is None else float(x > 0)
        case "y * 2 < 10 or not flag":
            return float(y * 2 < 10 or not flag)
    raise AssertionError(column)


def never(_values: Values) -> bool:
    """No event erases."""
    return False


@dataclass
class Reference:
    """What an entity accepts, by the rules as documented, with nothing forgotten but by an event for which `erases` is true."""

    horizon_ms: int
    erases: Callable[[Values], bool] = never
    accepted: list[Happening] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    @property
    def newest_ms(self) -> int:
        """Time of the newest accepted event."""
        return max(event.time_ms for event in self.accepted)

    def offer(self, event: Happening) -> str:
        """Takes an event or not: "FOLDED", "CORRECTED" (folded, but older than the newest), "ERASED", "LATE" or "DUPLICATE"."""
        erases = self.erases(event.values)
        if not erases and self.accepted and event.time_ms < self.newest_ms - self.horizon_ms:
            return "LATE"
        if event.id is not None:
            if event.id in self.ids[-DEDUPE:]:
                return "DUPLICATE"
            self.ids.append(event.id)
        if erases:
            self.accepted = []
            return "ERASED"
        corrected = bool(self.accepted) and event.time_ms < self.newest_ms
        self.accepted.append(event)
        return "CORRECTED" if corrected else "FOLDED"

    def value(self, feature: Feature, time_ms: int) -> Value:
        """A feature as its oracle says, over all accepted events in the tiles that the window covers."""
        if time_ms < self.newest_ms <= time_ms + 5_000:
            time_ms = self.newest_ms  # clocks differ
        column = feature.aggregation.column
        events = [(event.time_ms, column_value(column, event.values)) for event in self.accepted]
        return expected(feature.aggregation, in_window(feature, events, time_ms), time_ms)

    def scale(self) -> float:
        """How large sums of this stream can get; what a tolerance is relative to."""
        return sum(abs(event.values.x or 0.0) + abs(event.values.y) + 1.0 for event in self.accepted)


WORDS = ["a", "é", "z", "", "e\u0301", "\U0001f30a" * 256, "\U0001f30a" * 256 + "a", "nan"]
"""Texts: none at all, of several bytes, of the greatest length, and one character longer."""

_FLOATS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e9, 1e9, allow_subnormal=False))
_VALUES = st.builds(
    Values, st.none() | _FLOATS, st.integers(-(2**40), 2**40) | st.integers(-9, 9), st.booleans(), st.none() | st.sampled_from(WORDS)
)
_IDS = st.none() | st.sampled_from("abcdef")
_EDGES_MS = st.sampled_from([0, 0, 1, -1, 17_331])
_STEPS = st.one_of(st.integers(0, 4), st.integers(-6, 6), st.integers(-150, 150))  # half minutes


@st.composite
def streams(draw: st.DrawFn, max_size: int = 20) -> list[Happening]:
    """Events of one entity, out of order, some late beyond the horizon, some twice, at and beside the edges of tiles."""
    events, newest = [], START_MS
    for step, edge, event_id, values in draw(st.lists(st.tuples(_STEPS, _EDGES_MS, _IDS, _VALUES), min_size=1, max_size=max_size)):
        time_ms = newest // 30_000 * 30_000 + step * 30_000 + edge
        newest = max(newest, time_ms)
        events.append(Happening(time_ms, event_id, values))
    return events


READ_OFFSETS_MS = [
    -3 * 60 * MINUTE_MS, -61 * MINUTE_MS, -9 * MINUTE_MS, -MINUTE_MS, -1, 0, 1, MINUTE_MS, 7 * MINUTE_MS, 59 * MINUTE_MS, 61 * MINUTE_MS, 10**10,
]  # fmt: skip
"""Times to read at, relative to the newest event: before, at and after it, up to where every window is empty."""


def fold_all(kernel: ViewKernel, events: Iterable[Happening], state: EntityState | None = None) -> EntityState:
    """Applies events one after another."""
    state = state or kernel.new_state()
    for event in events:
        kernel.apply(state, event.time_ms, event.id, event.values)
    return state
