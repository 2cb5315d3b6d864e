"""Windows, and the tiles from which they are merged. Both are values. A `Grid` says to which tile an event belongs. A `Window` says which
tiles it covers at a time, and whether the state still has all of them. No code outside this module asks which kind of window it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tidemill.durations import parse_ms
from tidemill.timestamps import rfc3339

LIFETIME = "lifetime"
NO_HORIZON_MS = 2**62  # longer than the distance between any two times that a message can carry


@dataclass(frozen=True)
class Grid:
    """How event time is cut into tiles: tile i begins `i * tile_ms` after `origin_ms`, and is `tile_ms` long."""

    tile_ms: int
    origin_ms: int = 0

    def index(self, time_ms: int) -> int:
        """The index of the tile of a time."""
        return (time_ms - self.origin_ms) // self.tile_ms

    def start_ms(self, index: int) -> int:
        """When a tile begins."""
        return self.origin_ms + index * self.tile_ms

    def tiles(self, span_ms: int) -> int:
        """How many tiles a span of time needs, rounded up."""
        return -(-span_ms // self.tile_ms)

    def divides(self, other: Grid) -> bool:
        """Whether each tile of this grid lies within one tile of the other. Then two times in one tile here are in one tile there."""
        return other == FOREVER or not (other.tile_ms % self.tile_ms or (other.origin_ms - self.origin_ms) % self.tile_ms)

    @property
    def written_ms(self) -> int:
        """The length of a tile in fingerprints, models and output for machines: 0 for FOREVER."""
        return 0 if self == FOREVER else self.tile_ms

    @property
    def text(self) -> str:
        """The length of a tile for a person."""
        return LIFETIME if self == FOREVER else f"{self.tile_ms / 60_000:g} min"


FOREVER = Grid(2**61, -(2**60))
"""One tile, with index 0, that holds every time that a message can carry."""
EACH_MS = Grid(1)
"""Tiles of 1 ms: events in one of them have the same time, so they share the tiles of every grid."""


class Tile(NamedTuple):
    """One tile of a grid."""

    grid: Grid
    number: int

    @property
    def written(self) -> tuple[int, int]:
        """Length and start in ms in output for machines: 0 and 0 for FOREVER."""
        return (0, 0) if self.grid == FOREVER else (self.grid.tile_ms, self.grid.start_ms(self.number))

    @property
    def text(self) -> str:
        """The tile, as text for a person."""
        return LIFETIME if self.grid == FOREVER else f"{self.grid.text} from {rfc3339(self.grid.start_ms(self.number))}"


Covered = tuple[int, int, bool]
"""The tiles that a window covers at a time: the first, the last, and whether an entity's state still has what they held then."""


@dataclass(frozen=True)
class Window(ABC):
    """Which events of an entity count for a feature. `grid`: the tiles from which the window is merged."""

    grid: Grid

    @abstractmethod
    def at(self, time_ms: int, newest_ms: int, kept_from: int) -> Covered:
        """The tiles covered at `time_ms`. `newest_ms`: time of the entity's newest event; `kept_from`: index of the oldest kept tile."""

    @property
    @abstractmethod
    def reach_ms(self) -> int:
        """How far before the newest event it needs tiles, in ms; 0 if it needs only the newest tile."""

    @property
    @abstractmethod
    def bounded(self) -> bool:
        """Whether it covers a limited stretch of time. Only then can an event that lies ahead wait for its time."""

    @property
    @abstractmethod
    def suffix(self) -> str:
        """The end that it adds to the name of a feature."""

    @property
    @abstractmethod
    def written_ms(self) -> int | None:
        """Its length in ms in answers for machines (null: the entity's whole life)."""

    @abstractmethod
    def starts_ms(self, covered: Covered) -> tuple[int | None, int | None]:
        """When the first and the last covered tile begin, in answers for machines (null: there is no beginning)."""

    @abstractmethod
    def text(self, covered: Covered) -> str:
        """The covered tiles, as text for a person."""


@dataclass(frozen=True)
class Sliding(Window):
    """All tiles that touch the last `length_ms` before the time asked for. `name`: the length as the project has it, "1h"."""

    length_ms: int
    name: str

    def at(self, time_ms: int, newest_ms: int, kept_from: int) -> Covered:
        """From the tile of the window's beginning to the tile of its end; whole if none of them was dropped."""
        tile_ms, since_ms = self.grid.tile_ms, time_ms - self.grid.origin_ms
        first = (since_ms - self.length_ms) // tile_ms
        return first, since_ms // tile_ms, first >= kept_from

    @property
    def reach_ms(self) -> int:
        """The window's length."""
        return self.length_ms

    @property
    def bounded(self) -> bool:
        """It is."""
        return True

    @property
    def suffix(self) -> str:
        """Its length, as the project has it."""
        return f"_{self.name}"

    @property
    def written_ms(self) -> int | None:
        """The window's length."""
        return self.length_ms

    def starts_ms(self, covered: Covered) -> tuple[int | None, int | None]:
        """The beginnings of both tiles."""
        return self.grid.start_ms(covered[0]), self.grid.start_ms(covered[1])

    def text(self, covered: Covered) -> str:
        """The beginnings of the first and the last tile."""
        first, last = self.starts_ms(covered)
        return f"tiles from {rfc3339(first or 0)} to {rfc3339(last or 0)}"


@dataclass(frozen=True)
class Lifetime(Window):
    """All events of the entity. Its one tile cannot be cut, so the window is whole only at times that do not lie before the newest event."""

    def at(self, time_ms: int, newest_ms: int, kept_from: int) -> Covered:
        """The one tile; whole unless it holds an event after the time asked for."""
        return 0, 0, newest_ms <= time_ms

    @property
    def reach_ms(self) -> int:
        """Its one tile is always the newest."""
        return 0

    @property
    def bounded(self) -> bool:
        """It is not."""
        return False

    @property
    def suffix(self) -> str:
        """Nothing: a feature without a window in its name covers the whole life."""
        return ""

    @property
    def written_ms(self) -> int | None:
        """It has no length."""
        return None

    def starts_ms(self, covered: Covered) -> tuple[int | None, int | None]:
        """There is no beginning."""
        return None, None

    def text(self, covered: Covered) -> str:
        """All of them."""
        return "all tiles"


def sliding(name: str, grid: Grid) -> Sliding:
    """The sliding window of a length such as "1h"."""
    return Sliding(grid, parse_ms(name), name)


def horizon_ms(windows: Iterable[Window], ahead_ms: int) -> int:
    """How far before its entity's newest event an event may lie and still be folded, in ms. An older event is too late."""
    longest = max(window.reach_ms for window in windows)
    return longest + ahead_ms if longest else NO_HORIZON_MS
