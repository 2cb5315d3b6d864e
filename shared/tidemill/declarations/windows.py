"""Windows and the tiles they are merged from. Both are values: a `Grid` says which tile an event belongs to, a `Window` which tiles it
covers at a time and whether they still tell the whole. Nothing outside this module knows one kind of window from another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tidemill.durations import parse_ms
from tidemill.timestamps import rfc3339

LIFETIME = "lifetime"
NO_HORIZON_MS = 2**62  # longer than the distance of any two times that a message can carry


@dataclass(frozen=True)
class Grid:
    """How event time is cut into tiles: tile i begins `i * tile_ms` after `origin_ms` and is `tile_ms` long."""

    tile_ms: int
    origin_ms: int = 0

    def index(self, time_ms: int) -> int:
        """The tile that a time belongs to."""
        return (time_ms - self.origin_ms) // self.tile_ms

    def start_ms(self, index: int) -> int:
        """When a tile begins."""
        return self.origin_ms + index * self.tile_ms

    def tiles(self, span_ms: int) -> int:
        """How many tiles a span of time has, a last part of one counted whole."""
        return -(-span_ms // self.tile_ms)

    def divides(self, other: Grid) -> bool:
        """Whether each of these tiles lies within one of the other's, so that times which share one of these share one of those."""
        return other == FOREVER or not (other.tile_ms % self.tile_ms or (other.origin_ms - self.origin_ms) % self.tile_ms)

    @property
    def written_ms(self) -> int:
        """The length of a tile as fingerprints, models and tools for machines write it: 0 for the one tile for ever."""
        return 0 if self == FOREVER else self.tile_ms

    @property
    def text(self) -> str:
        """The length of a tile for a person."""
        return LIFETIME if self == FOREVER else f"{self.tile_ms / 60_000:g} min"


FOREVER = Grid(2**61, -(2**60))
"""One tile, with index 0, for every time that a message can carry."""
EACH_MS = Grid(1)
"""Tiles so short that events in one of them have the same time, hence share the tiles of every grid."""


class Tile(NamedTuple):
    """One tile of a grid."""

    grid: Grid
    number: int

    @property
    def written(self) -> tuple[int, int]:
        """Length and start in ms as tools for machines write them: 0 and 0 for the one tile for ever."""
        return (0, 0) if self.grid == FOREVER else (self.grid.tile_ms, self.grid.start_ms(self.number))

    @property
    def text(self) -> str:
        """Which tile, for a person."""
        return LIFETIME if self.grid == FOREVER else f"{self.grid.text} from {rfc3339(self.grid.start_ms(self.number))}"


Covered = tuple[int, int, bool]
"""The tiles a window covers at a time: the first, the last, and whether an entity's state still tells what they held then."""


@dataclass(frozen=True)
class Window(ABC):
    """Which of an entity's events a feature is of. `grid`: the tiles it is merged from."""

    grid: Grid

    @abstractmethod
    def at(self, time_ms: int, newest_ms: int, kept_from: int) -> Covered:
        """The tiles at a time, for an entity whose newest event is at `newest_ms` and whose tiles from index `kept_from` on are kept."""

    @property
    @abstractmethod
    def reach_ms(self) -> int:
        """How far before the newest event it needs tiles beside the newest one."""

    @property
    @abstractmethod
    def bounded(self) -> bool:
        """Whether it covers a stretch of time only, so that an event ahead of its time can wait for it."""

    @property
    @abstractmethod
    def suffix(self) -> str:
        """What it adds to the name of a feature."""

    @property
    @abstractmethod
    def written_ms(self) -> int | None:
        """Its length in ms as answers for machines write it (null: the entity's whole life)."""

    @abstractmethod
    def starts_ms(self, covered: Covered) -> tuple[int | None, int | None]:
        """When the first and the last tile covered begin, as answers for machines write it (null: there is no beginning)."""

    @abstractmethod
    def text(self, covered: Covered) -> str:
        """Which tiles are covered, for a person."""


@dataclass(frozen=True)
class Sliding(Window):
    """The last `length_ms` before the time asked for: all tiles that touch them. `name`: as written, "1h"."""

    length_ms: int
    name: str

    def at(self, time_ms: int, newest_ms: int, kept_from: int) -> Covered:
        """From the tile of the window's beginning to that of its end; whole when none of them has been dropped."""
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
        """Its length as written."""
        return f"_{self.name}"

    @property
    def written_ms(self) -> int | None:
        """The window's length."""
        return self.length_ms

    def starts_ms(self, covered: Covered) -> tuple[int | None, int | None]:
        """Both have a beginning."""
        return self.grid.start_ms(covered[0]), self.grid.start_ms(covered[1])

    def text(self, covered: Covered) -> str:
        """From where to where."""
        first, last = self.starts_ms(covered)
        return f"tiles from {rfc3339(first or 0)} to {rfc3339(last or 0)}"


@dataclass(frozen=True)
class Lifetime(Window):
    """All events of the entity. Since its one tile forgets nothing and cannot be cut, it tells of no time before the newest event,
    `slack_ms` aside."""

    slack_ms: int

    def at(self, time_ms: int, newest_ms: int, kept_from: int) -> Covered:
        """The one tile; whole unless it holds an event after the time asked for."""
        return 0, 0, newest_ms <= time_ms + self.slack_ms

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
        """None: a feature without a window in its name is of the whole life."""
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
    """The window of a length such as "1h"."""
    return Sliding(grid, parse_ms(name), name)


def horizon_ms(windows: Iterable[Window], ahead_ms: int) -> int:
    """How far before an entity's newest event an event may lie and still be folded; beyond it an event is too late."""
    longest = max(window.reach_ms for window in windows)
    return longest + ahead_ms if longest else NO_HORIZON_MS
