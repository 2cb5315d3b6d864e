"""The functions with which a project declares aggregates: count(), mean("delay"), rate("delay > 15", name="late"), last("temp")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tidemill.declarations.aggregations import Age, Aggregation, Count, Last, Max, Mean, Min, Rate, Std, Sum
from tidemill.declarations.windows import LIFETIME

A = TypeVar("A", bound=Aggregation)


def _make(kind: type[A], column: str | None, windows: Sequence[str] | None, name: str | None) -> A:
    return kind(column=column, windows=None if windows is None else tuple(windows), name=name)


def count(column: str | None = None, *, windows: Sequence[str] | None = None, name: str | None = None) -> Count:
    """How many events; with a column, how many events in which it is not null."""
    return _make(Count, column, windows, name)


def sum(column: str, *, windows: Sequence[str] | None = None, name: str | None = None) -> Sum:
    """Sum of a column."""
    return _make(Sum, column, windows, name)


def mean(column: str, *, windows: Sequence[str] | None = None, name: str | None = None) -> Mean:
    """Mean of a column."""
    return _make(Mean, column, windows, name)


def rate(condition: str, *, windows: Sequence[str] | None = None, name: str | None = None) -> Rate:
    """Share of events for which a condition (or a field of bool) holds. A rate needs a name."""
    return _make(Rate, condition, windows, name)


def min(column: str, *, windows: Sequence[str] | None = None, name: str | None = None) -> Min:
    """Smallest value of a column."""
    return _make(Min, column, windows, name)


def max(column: str, *, windows: Sequence[str] | None = None, name: str | None = None) -> Max:
    """Largest value of a column."""
    return _make(Max, column, windows, name)


def std(column: str, *, windows: Sequence[str] | None = None, name: str | None = None) -> Std:
    """Sample standard deviation of a column."""
    return _make(Std, column, windows, name)


def last(column: str, *, windows: Sequence[str] | None = None, name: str | None = None) -> Last:
    """Value of the newest event, of a number or a text. Without windows, over the whole life of the entity."""
    return _make(Last, column, windows or (LIFETIME,), name)


def age(column: str | None = None, *, windows: Sequence[str] | None = None, name: str | None = None) -> Age:
    """Seconds since the newest event. Without windows, over the whole life of the entity."""
    return _make(Age, column, windows or (LIFETIME,), name)
