"""first("x"): the value of the oldest event."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.declarations.aggregations import Aggregation, Value
from tidemill.declarations.slots import FloatKind, SlotKind
from tidemill.declarations.texts import OldestText, text_of
from tidemill.declarations.windows import LIFETIME

if TYPE_CHECKING:
    from tidemill.declarations.slots import Matrix


@dataclass(frozen=True)
class Oldest(FloatKind):
    """Time and value of the oldest event. Of two events at one time, the one that arrived first is the older."""

    word, reads = "first", frozenset({"number", "time"})
    empty, fold = (math.inf, math.nan), "if t < s[{i}]: s[{i}] = t; s[{i1}] = x"

    def merge(self, tiles: Matrix, places: Mapping[str, int], merged: Sequence[float]) -> list[float]:
        """The numbers of the tile with the oldest event; of equal times the earlier tile wins, as in the fold."""
        i = places["i"]
        oldest: list[float] = tiles[int(tiles[:, i].argmin()), i : i + 2].tolist()
        return oldest

    def merge_each(self, tiles: Matrix, places: Mapping[str, int], merged: Matrix) -> Matrix:
        """The same tile of each window."""
        i = places["i"]
        return tiles[range(len(tiles)), tiles[..., i].argmin(axis=1), i : i + 2]


class First(Aggregation):
    """The value of the oldest event in the window, by event time."""

    word = "first"
    kinds: ClassVar[tuple[SlotKind, ...]] = (Oldest(),)

    def over_text(self) -> Aggregation:
        """The text of the oldest event."""
        return FirstText(column=self.column, windows=self.windows, name=self.name)

    def read(self, *slots: Any) -> Value:
        """The value; NaN over no events."""
        value: float = slots[1]
        return value


class FirstText(First):
    """The text of the oldest event, by the same rules."""

    kinds, gives = (OldestText(),), str

    def over_places(self) -> Aggregation:
        """The place of the oldest event."""
        return First(column=self.column, windows=self.windows, name=self.name)

    def read(self, *slots: Any) -> Value:
        """The text; NaN over no events."""
        return text_of(slots[0]) if slots[0] else math.nan


def first(column: str, *, windows: Sequence[str] | None = None, name: str | None = None) -> First:
    """Value of the oldest event, of a number or a text. Without windows, over the whole life of the entity."""
    return First(column=column, windows=tuple(windows or (LIFETIME,)), name=name)
