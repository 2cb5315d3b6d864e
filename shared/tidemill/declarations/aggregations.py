"""The aggregations: which slots of a tile each one needs, and how it reads its value from them.

Folding and merging belong to the slots (slots.py). Two aggregations that need the same slot share it: count and mean of one column, say. An
aggregation that needs a new kind of slot has its own file, with the kind and the function that a project calls (first.py).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from tidemill.declarations.slots import M2, Largest, N, NewestTime, NewestValue, Slot, SlotKind, Smallest, Total
from tidemill.declarations.texts import NewestText, text_of

Value = float | list[float] | str
"""The value of a feature: a number (NaN: no value), a list of numbers or a text."""


@dataclass(frozen=True, kw_only=True)
class Aggregation(ABC):
    """One aggregate of a view. `column`: a field or a condition; `windows`: in place of the view's; `name`: in place of the default name.

    `word`: its function's name in a project; `kinds`: its kinds of slots, in the order in which `read` takes them; `as_ages`: slots hold
    times, and `read` takes their ages in ms at the time asked for; `needs_truth`: the column is a condition or a bool; `gives`: the type of
    the value: a number, a list of numbers, which no model takes, or a text, which a model takes as a category.
    """

    column: str | None = None
    windows: tuple[str, ...] | None = None
    name: str | None = None

    word: ClassVar[str]
    needs_column: ClassVar[bool] = True
    needs_truth: ClassVar[bool] = False
    as_ages: ClassVar[bool] = False
    gives: ClassVar[type[float] | type[list[Any]] | type[str]] = float
    kinds: ClassVar[tuple[SlotKind, ...]]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The slots that this aggregation reads, in the order in which `read` takes them."""
        return tuple(Slot(kind, self.column) for kind in self.kinds)

    @property
    def mistake(self) -> str:
        """What is wrong with its arguments ("": nothing)."""
        return ""

    @property
    def takes_text(self) -> bool:
        """Whether its column may be a text field."""
        return all("text" in slot.kind.reads or not slot.kind.sees_value for slot in self.slots)

    @property
    def takes_numbers(self) -> bool:
        """Whether its column may be a number or a condition."""
        return all("number" in slot.kind.reads or not slot.kind.sees_value for slot in self.slots)

    def over_text(self) -> Aggregation | None:
        """What this aggregation is over a text field; None: it has no meaning there."""
        return self if self.takes_text else None

    def over_places(self) -> Aggregation:
        """This aggregation over a column in which each text is its place in a list; of a text its value is such a place."""
        return self

    @property
    def label(self) -> str:
        """The feature's name without its window: the declared name, or one such as "mean_price"."""
        return self.name or (f"{self.word}_{self.column}" if self.column else self.word)

    @abstractmethod
    def read(self, *slots: Any) -> Value:
        """The value of a merged tile; NaN if there is none. `slots`: the numbers of each slot, or the bytes of a side value."""


class Count(Aggregation):
    """How many events; with a column, how many events in which it is not null."""

    word, needs_column, kinds = "count", False, (N(),)

    def read(self, *slots: float) -> float:
        """The count."""
        return slots[0]


class Sum(Aggregation):
    """Sum of a column; 0 over no events."""

    word, kinds = "sum", (Total(),)

    def read(self, *slots: float) -> float:
        """The sum."""
        return slots[0]


class Mean(Aggregation):
    """Arithmetic mean of a column."""

    word, kinds = "mean", (N(), Total())

    def read(self, *slots: float) -> float:
        """Sum over count; NaN over no events."""
        n, total = slots
        return total / n if n else math.nan


class Rate(Mean):
    """Share of events for which a condition holds, among the events for which it is not null."""

    word, needs_truth = "rate", True


class Min(Aggregation):
    """Smallest value of a column."""

    word, kinds = "min", (Smallest(),)

    def read(self, *slots: float) -> float:
        """The minimum; NaN over no events."""
        return slots[0] if slots[0] != math.inf else math.nan


class Max(Aggregation):
    """Largest value of a column."""

    word, kinds = "max", (Largest(),)

    def read(self, *slots: float) -> float:
        """The maximum; NaN over no events."""
        return slots[0] if slots[0] != -math.inf else math.nan


class Std(Aggregation):
    """Sample standard deviation of a column (n - 1 in the denominator)."""

    word, kinds = "std", (N(), Total(), M2())

    def read(self, *slots: float) -> float:
        """sqrt(M2 / (n - 1)); NaN below two events."""
        n, _, m2 = slots
        return math.sqrt(max(m2, 0.0) / (n - 1)) if n > 1 else math.nan


class Last(Aggregation):
    """The value of the newest event by event time. Of two events at one time, the one that arrived later is the newer."""

    word = "last"
    kinds: ClassVar[tuple[SlotKind, ...]] = (NewestTime(), NewestValue())

    def over_text(self) -> Aggregation:
        """The text of the newest event."""
        return LastText(column=self.column, windows=self.windows, name=self.name)

    def read(self, *slots: Any) -> Value:
        """The value; NaN over no events."""
        value: float = slots[1]
        return value


class LastText(Last):
    """The text of the newest event, by the same rules."""

    kinds, gives = (NewestText(),), str

    def over_places(self) -> Aggregation:
        """The place of the newest event."""
        return Last(column=self.column, windows=self.windows, name=self.name)

    def read(self, *slots: Any) -> Value:
        """The text; NaN over no events."""
        return text_of(slots[0]) if slots[0] else math.nan


class Age(Aggregation):
    """Seconds since the newest event in which the column was not null (any event, without a column)."""

    word, needs_column, as_ages, kinds = "age", False, True, (NewestTime(),)

    def read(self, *slots: float) -> float:
        """The age in seconds; NaN over no events."""
        return slots[0] / 1000.0 if math.isfinite(slots[0]) else math.nan
