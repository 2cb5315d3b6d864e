"""The aggregations: which slots of a tile each needs, how its value is read from them, and the batch oracle that says what it should be.

Folding and merging belong to the slots (kernel/tiles.py): two aggregations that need the same slot (count and mean of one column) share it.
"""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tidemill.declarations.slots import Kind, Slot

LIFETIME = "lifetime"


@dataclass(frozen=True, kw_only=True)
class Aggregation(ABC):
    """One aggregate of a view. `column`: field or condition; `windows`: fewer windows than the view's; `name`: instead of the default."""

    column: str | None = None
    windows: tuple[str, ...] | None = None
    name: str | None = None

    word: ClassVar[str]
    needs_column: ClassVar[bool] = True
    kinds: ClassVar[tuple[Kind, ...]]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The slots this aggregation reads, in the order in which `read` takes them."""
        return tuple(Slot(kind, self.column) for kind in self.kinds)

    @property
    def label(self) -> str:
        """The feature's name without its window: "mean_price", or the name given."""
        return self.name or (f"{self.word}_{self.column}" if self.column else self.word)

    @abstractmethod
    def read(self, *slots: float) -> float:
        """The value of a merged tile; NaN where there is none."""

    @abstractmethod
    def oracle(self, events: Sequence[tuple[int, float | None]]) -> float:
        """The same value from all (time_ms, column value) in the window, in order of arrival, computed the naive way."""


def _present(events: Sequence[tuple[int, float | None]]) -> list[float]:
    return [value for _, value in events if value is not None]


class Count(Aggregation):
    """How many events; with a column, how many in which it is not null."""

    word, needs_column, kinds = "count", False, ("n",)

    def read(self, *slots: float) -> float:
        """The count."""
        return slots[0]

    def oracle(self, events: Sequence[tuple[int, float | None]]) -> float:
        """Length of the list."""
        return float(len(events) if self.column is None else len(_present(events)))


class Sum(Aggregation):
    """Sum of a column; 0 over no events."""

    word, kinds = "sum", ("sum",)

    def read(self, *slots: float) -> float:
        """The sum."""
        return slots[0]

    def oracle(self, events: Sequence[tuple[int, float | None]]) -> float:
        """Exact sum, rounded once."""
        return math.fsum(_present(events))


class Mean(Aggregation):
    """Arithmetic mean of a column."""

    word, kinds = "mean", ("n", "sum")

    def read(self, *slots: float) -> float:
        """Sum over count; NaN over no events."""
        n, total = slots
        return total / n if n else math.nan

    def oracle(self, events: Sequence[tuple[int, float | None]]) -> float:
        """Exact mean, rounded once."""
        values = _present(events)
        return math.fsum(values) / len(values) if values else math.nan


class Rate(Mean):
    """Share of events for which a condition holds, among those where it is not null."""

    word = "rate"


class Min(Aggregation):
    """Smallest value of a column."""

    word, kinds = "min", ("min",)

    def read(self, *slots: float) -> float:
        """The minimum; NaN over no events."""
        return slots[0] if slots[0] != math.inf else math.nan

    def oracle(self, events: Sequence[tuple[int, float | None]]) -> float:
        """The builtin."""
        return min(_present(events), default=math.nan)


class Max(Aggregation):
    """Largest value of a column."""

    word, kinds = "max", ("max",)

    def read(self, *slots: float) -> float:
        """The maximum; NaN over no events."""
        return slots[0] if slots[0] != -math.inf else math.nan

    def oracle(self, events: Sequence[tuple[int, float | None]]) -> float:
        """The builtin."""
        return max(_present(events), default=math.nan)


class Std(Aggregation):
    """Sample standard deviation of a column (n - 1 in the denominator)."""

    word, kinds = "std", ("n", "sum", "m2")

    def read(self, *slots: float) -> float:
        """sqrt(M2 / (n - 1)); NaN below two events."""
        n, _, m2 = slots
        return math.sqrt(max(m2, 0.0) / (n - 1)) if n > 1 else math.nan

    def oracle(self, events: Sequence[tuple[int, float | None]]) -> float:
        """Two passes over the values."""
        values = _present(events)
        return statistics.stdev(values) if len(values) > 1 else math.nan


class Last(Aggregation):
    """The value of the newest event (by event time; of two at one time, the one that arrived later)."""

    word, kinds = "last", ("last_time", "last")

    def read(self, *slots: float) -> float:
        """The value; NaN over no events."""
        return slots[1]

    def oracle(self, events: Sequence[tuple[int, float | None]]) -> float:
        """Walk from the end of a stable sort by time."""
        known = [(time, value) for time, value in events if value is not None]
        return sorted(known, key=lambda pair: pair[0])[-1][1] if known else math.nan


class Age(Aggregation):
    """Seconds since the newest event in which the column was not null (any event, without a column)."""

    word, needs_column, kinds = "age", False, ("last_time",)

    def read(self, *slots: float) -> float:
        """Seconds before the request; the caller passes request time minus the newest time, in ms."""
        return slots[0] / 1000.0 if math.isfinite(slots[0]) else math.nan

    def oracle(self, events: Sequence[tuple[int, float | None]]) -> float:
        """Newest time in ms; the request's time is not known here."""
        times = [time for time, value in events if self.column is None or value is not None]
        return float(max(times, default=-math.inf))
