"""What event time means, said in the naive way: every event is kept, every window computed from scratch. No tiles, no fold, no states."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.oracles import expected, in_window

from tidemill.declarations import Feature, FeatureView
from tidemill.declarations.aggregations import Value


class Told(NamedTuple):
    """One event of one entity as its publisher told it."""

    entity: str
    time_ms: int
    known_ms: int
    id: str | None
    x: int | None

    @property
    def word(self) -> str | None:
        """A text that tells events apart as `x` does."""
        return None if self.x is None else f"é {self.x}" * (self.x % 3)


@dataclass
class Naive:
    """All events that an entity of a view accepts. `duplicates`, `late` and `late_by_ms` tell what became of the others, `ahead` how many
    of those accepted lay ahead of the moment when they became known."""

    view: FeatureView
    accepted: list[Told] = field(default_factory=list)
    late_by_ms: list[int] = field(default_factory=list)
    duplicates: int = 0
    ahead: int = 0

    @property
    def newest_ms(self) -> int:
        """Time of the newest accepted event."""
        return max(event.time_ms for event in self.accepted)

    def offer(self, event: Told) -> bool:
        """Takes an event, or not; False: it is too late."""
        ahead = event.time_ms > event.known_ms
        if self.view.ahead_ms is None:  # it cannot have happened after it became known
            event = event._replace(time_ms=min(event.time_ms, event.known_ms))
        horizon_ms = max(feature.window.reach_ms for feature in self.view.served) + (self.view.ahead_ms or 0)
        behind_ms = self.newest_ms - event.time_ms if self.accepted else 0
        if behind_ms > horizon_ms:
            self.late_by_ms.append(behind_ms)
            return False
        recent = [accepted.id for accepted in self.accepted if accepted.id is not None][-self.view.last_ids :]
        if event.id is not None and event.id in recent:
            self.duplicates += 1
            return True
        if behind_ms > 0:
            self.late_by_ms.append(behind_ms)
        self.accepted.append(event)
        self.ahead += ahead
        return True

    def serve(self, time_ms: int) -> list[tuple[str, Value]]:
        """Status and value of each feature at a time that no event known by then lies further behind than its view lets events wait."""
        newest_ms = self._seen_ms(time_ms)
        if newest_ms is None:
            return [("NOT_FOUND", math.nan)] * len(self.view.served)
        if self.view.ttl_ms is not None and time_ms - newest_ms > self.view.ttl_ms:
            return [("OUTSIDE_MAX_AGE", math.nan)] * len(self.view.served)
        return [self._feature(feature, time_ms) for feature in self.view.served]

    def _seen_ms(self, time_ms: int) -> int | None:
        """The newest event; where events wait, the newest one whose finest tile has begun."""
        if not self.accepted or self.view.ahead_ms is None or self.newest_ms <= time_ms:
            return self.newest_ms if self.accepted else None
        finest_ms = min(feature.window.grid.tile_ms for feature in self.view.served)
        begun = [event.time_ms for event in self.accepted if event.time_ms // finest_ms <= time_ms // finest_ms]
        return min(max(begun), time_ms) if begun else None

    def _feature(self, feature: Feature, time_ms: int) -> tuple[str, Value]:
        window = feature.window
        if self.view.ahead_ms is None and time_ms < self.newest_ms <= time_ms + 5_000:
            time_ms = self.newest_ms  # clocks differ
        whole = self.newest_ms <= time_ms
        if window.bounded:
            tile_ms = window.grid.tile_ms
            cut = not whole and any(event.time_ms // tile_ms == time_ms // tile_ms for event in self.accepted)
            whole = self.view.ahead_ms is not None or ((time_ms - window.reach_ms) // tile_ms >= self._kept_from(feature) and not cut)
        events = in_window(feature, [(event.time_ms, _column(feature, event)) for event in self.accepted], time_ms)
        value = expected(feature.aggregation, events, time_ms)
        if not whole:
            return "INVALID", math.nan
        return ("NULL_VALUE" if isinstance(value, float) and math.isnan(value) else "PRESENT"), value

    def _kept_from(self, feature: Feature) -> int:
        """The oldest tile of this length that is kept where events do not wait."""
        grid = feature.window.grid
        longest_ms = max(other.window.reach_ms for other in self.view.served if other.window.grid == grid)
        return self.newest_ms // grid.tile_ms - longest_ms // grid.tile_ms


def _column(feature: Feature, event: Told) -> Any:
    match feature.aggregation.column:
        case None:
            return 1
        case "x > 1":
            return None if event.x is None else float(event.x > 1)
        case field:
            return getattr(event, field)
