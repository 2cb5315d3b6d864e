"""What a view must show, computed the naive way from its log: no tiles, no fold, all events one by one; and what results must say."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tests.oracles import expected

from tidemill.declarations import FeatureView
from tidemill.kernel.fold import LogEntry

# Sums of `value` depend on the order of addition; those are for the comparison byte by byte.
_COLUMNS: dict[str | None, Callable[[Any], float | None]] = {
    None: lambda values: None,
    "units": lambda values: values.units,
    "value > 50": lambda values: float(values.value > 50),
    "grade": lambda values: getattr(values, "grade", None),
}


# What erases is said again in plain Python.
_ERASES: dict[str | None, Callable[[Any], bool]] = {None: lambda values: False, "value > 99.9": lambda values: bool(values.value > 99.9)}


class _Entity:
    """The events of an entity that a window can reach, and what its whole life adds up to."""

    def __init__(self, dedupe: int) -> None:
        self.ids: deque[str] = deque(maxlen=dedupe)
        self._known: set[str] = set()  # the same, to look them up
        self.erase()

    def erase(self) -> None:
        """Begins anew, but for the recent ids."""
        self.newest = -math.inf
        self.times = array("q")
        self.columns: dict[str | None, array[float]] = {name: array("d") for name in _COLUMNS}
        self.life = {"count": 0.0, "sum_units": 0.0, "max_units": math.nan}

    def holds(self, event: str) -> bool:
        """Whether an event is among the recent ones; if not it is from now on, in place of the oldest."""
        if event in self._known:
            return True
        if len(self.ids) == self.ids.maxlen:
            self._known.remove(self.ids[0])
        self.ids.append(event)
        self._known.add(event)
        return False

    def forget(self, before_ms: float) -> None:
        """Leaves out what no window can reach any more."""
        kept = [i for i, time in enumerate(self.times) if time >= before_ms]
        self.columns = {name: array("d", [values[i] for i in kept]) for name, values in self.columns.items()}
        self.times = array("q", [self.times[i] for i in kept])


class Naive:
    """One partition of a view. `folded`, `duplicates`, `resent`, `late`, `poison`: what became of its records."""

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        self.entities: dict[bytes, _Entity] = {}
        self.counts = dict.fromkeys(("folded", "duplicates", "resent", "late", "poison"), 0)
        self._sources: dict[int, int] = {}
        self._erases = _ERASES[view.erase]
        self._lately: dict[tuple[bytes, str], int] = {}  # the newest third of the time for which ids are remembered, of each entity's id
        self._newest = 0
        self._longest_ms = max(feature.window.reach_ms for feature in view.served)
        self._coarsest_ms = max(feature.window.grid.tile_ms for feature in view.served if feature.window.bounded)

    def apply(self, entry: LogEntry) -> str:
        """Takes the next record of the log; returns under what it was counted."""
        outcome = self._outcome(entry)
        self.counts[outcome] += 1
        return outcome

    def _outcome(self, entry: LogEntry) -> str:
        record = entry.record
        if record is None:
            return "poison"
        repeats = self.view.dedupe_ms is not None and self._repeats(
            entry.key, record.id or "", record.known // -(-self.view.dedupe_ms // 3)
        )
        partition, offset = record.source
        if offset <= self._sources.get(partition, -1):
            return "resent"
        self._sources[partition] = offset
        if repeats:
            return "duplicates"
        entity = self.entities.get(entry.key)
        if entity is None:
            entity = self.entities[entry.key] = _Entity(self.view.last_ids)
        erases = self._erases(record.values)
        if record.time < entity.newest - self._longest_ms and not erases:
            return "late"
        if entity.holds(record.id or ""):
            return "duplicates"
        if erases:
            entity.erase()
            return "folded"
        entity.newest = max(entity.newest, record.time)
        entity.times.append(record.time)
        for name, get in _COLUMNS.items():
            value = get(record.values)
            entity.columns[name].append(math.nan if value is None else value)
        self._live(entity.life, getattr(record.values, "units"))  # noqa: B009 - fields are known by name only
        if len(entity.times) > 64 and entity.times[0] < entity.newest - 2 * self._longest_ms:
            entity.forget(entity.newest - self._longest_ms - 2 * self._coarsest_ms)
        return "folded"

    def _repeats(self, key: bytes, event: str, third: int) -> bool:
        """Whether the log had the event in the same third of its time or in one of the three before. `third`: in which the event became known."""
        if third > self._newest:
            self._newest = third
            self._lately = {told: at for told, at in self._lately.items() if at >= third - 3}
        before = self._lately.get((key, event))
        self._lately[key, event] = self._newest
        return before is not None

    @staticmethod
    def _live(life: dict[str, float], units: float | None) -> None:
        life["count"] += 1
        if units is not None:
            life["sum_units"] += units
            life["max_units"] = units if math.isnan(life["max_units"]) else max(units, life["max_units"])

    def features(self, key: bytes, time_ms: int) -> dict[str, float]:
        """The features of an entity as of a time that is not before its newest event, but for those whose bits depend on order."""
        entity = self.entities[key]
        times, found = np.array(entity.times), dict[str, float]()
        for feature in self.view.served:
            column, window = feature.aggregation.column, feature.window
            if not window.bounded:
                if feature.name in entity.life:
                    found[feature.name] = entity.life[feature.name]
            elif column in _COLUMNS:
                first, last = window.grid.index(time_ms - window.reach_ms), window.grid.index(time_ms)
                values, tiles = np.array(entity.columns[column]), times // window.grid.tile_ms
                inside = (first <= tiles) & (tiles <= last)
                pairs = zip(times[inside].tolist(), values[inside].tolist(), strict=True)
                events = [(t, None if math.isnan(value) else value) for t, value in pairs]
                found[feature.name] = float(expected(feature.aggregation, events, time_ms))  # type: ignore[arg-type]
        return found


class Joined(NamedTuple):
    """What the result of a prediction must say."""

    status: str
    known: int
    outcome: float | None


def joined(time_ms: int, within_ms: int, outcomes: Sequence[tuple[int, float]]) -> Joined:
    """The first outcome (known, value) of the log that became known after the prediction, and in time; `never` without one."""
    for known, value in outcomes:
        if time_ms < known <= time_ms + within_ms:
            return Joined("joined", known, value)
    return Joined("never", time_ms + within_ms, None)


def differing(expected: Mapping[str, float], shown: Mapping[str, float | None]) -> list[tuple[str, float | None, float]]:
    """Features (name, shown, expected) whose bits differ; one that is not a number is shown as None or NaN."""
    wrong: list[tuple[str, float | None, float]] = []
    for name, value in expected.items():
        other = shown.get(name)
        other = math.nan if other is None else other
        if not (other == value or (math.isnan(other) and math.isnan(value))):
            wrong.append((name, other, value))
    return wrong
