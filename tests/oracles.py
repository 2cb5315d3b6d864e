"""What every aggregation should say, computed the naive way from all events of its window: no tiles, no slots, nothing incremental.

One function per aggregation, found by its class; a class without one fails the tests that walk all aggregations.
"""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from tidemill.declarations import Feature
from tidemill.declarations.aggregations import Age, Aggregation, Count, Last, LastText, Max, Mean, Min, Rate, Std, Sum, Value
from tidemill.declarations.distinct import Distinct
from tidemill.declarations.first import First, FirstText
from tidemill.declarations.last_k import LastK

Events = Sequence[tuple[int, Any]]
"""(time_ms, column value or None) of each event, in order of arrival."""
Oracle = Callable[[Any, Events, int], Value]
A = TypeVar("A", bound=Callable[[Any, Events, int], Value])

_ORACLES: dict[type[Aggregation], Oracle] = {}


def aggregation_kinds() -> list[type[Aggregation]]:
    """Every concrete class of aggregation that tidemill has, found by walking the subclasses: tests have some of their own."""

    def below(kind: type[Aggregation]) -> Iterable[type[Aggregation]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    kinds = set(below(Aggregation))  # type: ignore[type-abstract]
    ours = {kind for kind in kinds if kind.__module__.startswith("tidemill.") and not inspect.isabstract(kind)}
    return sorted(ours, key=lambda kind: kind.__name__)


def expected(aggregation: Aggregation, events: Events, time_ms: int) -> Value:
    """The value of an aggregation over the events of its window, for a question at a time."""
    if type(aggregation) not in _ORACLES:
        raise NotImplementedError(
            f"{type(aggregation).__name__} has no oracle: add a function under @_of({type(aggregation).__name__}) in tests/oracles.py"
        )
    return _ORACLES[type(aggregation)](aggregation, events, time_ms)


def in_window(feature: Feature, events: Events, time_ms: int) -> Events:
    """The events in the tiles that a feature's window covers at a time."""
    window = feature.window
    if not window.bounded:
        return events
    first, last = (time_ms - window.reach_ms) // window.grid.tile_ms, time_ms // window.grid.tile_ms
    return [event for event in events if first <= event[0] // window.grid.tile_ms <= last]


def _of(*kinds: type[Aggregation]) -> Callable[[A], A]:
    def register(oracle: A) -> A:
        _ORACLES.update(dict.fromkeys(kinds, oracle))
        return oracle

    return register


def _cut(text: str) -> str:
    """The first 256 characters."""
    return "".join(character for place, character in enumerate(text) if place < 256)


def _present(events: Events) -> list[Any]:
    return [value for _, value in events if value is not None]


def _by_time(events: Events) -> list[tuple[int, Any]]:
    """Those with a value, by event time; of two at one time, the one that arrived later comes later."""
    return sorted(((time, value) for time, value in events if value is not None), key=lambda pair: pair[0])


@_of(Count)
def _count(aggregation: Count, events: Events, _: int) -> float:
    return float(len(events) if aggregation.column is None else len(_present(events)))


@_of(Sum)
def _sum(_: Sum, events: Events, __: int) -> float:
    return math.fsum(_present(events))


@_of(Mean, Rate)
def _mean(_: Mean, events: Events, __: int) -> float:
    values = _present(events)
    return math.fsum(values) / len(values) if values else math.nan


@_of(Min)
def _min(_: Min, events: Events, __: int) -> float:
    return float(min(_present(events), default=math.nan))


@_of(Max)
def _max(_: Max, events: Events, __: int) -> float:
    return float(max(_present(events), default=math.nan))


@_of(Std)
def _std(_: Std, events: Events, __: int) -> float:
    values = _present(events)
    return statistics.stdev(values) if len(values) > 1 else math.nan


@_of(Last)
def _last(_: Last, events: Events, __: int) -> float:
    known = _by_time(events)
    return float(known[-1][1]) if known else math.nan


@_of(LastText)
def _last_text(_: LastText, events: Events, __: int) -> Value:
    known = _by_time(events)
    return _cut(known[-1][1]) if known else math.nan


@_of(Age)
def _age(aggregation: Age, events: Events, time_ms: int) -> float:
    times = [time for time, value in events if aggregation.column is None or value is not None]
    return max(time_ms - max(times), 0) / 1000 if times else math.nan


@_of(First)
def _first(_: First, events: Events, __: int) -> float:
    known = _by_time(events)
    return float(known[0][1]) if known else math.nan


@_of(FirstText)
def _first_text(_: FirstText, events: Events, __: int) -> Value:
    known = _by_time(events)
    return _cut(known[0][1]) if known else math.nan


@_of(LastK)
def _last_k(aggregation: LastK, events: Events, _: int) -> Value:
    return [float(value) for _, value in _by_time(events)[-aggregation.n :]] or math.nan


@_of(Distinct)
def _distinct(_: Distinct, events: Events, __: int) -> float:
    return float(len(set(_present(events))))
