"""last_k("x", 5): the values of the newest events, as a list."""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.slots import SideKind, Slot
from tidemill.declarations.windows import LIFETIME

MOST = 100
_EVENT = struct.Struct("<qd")


@dataclass(frozen=True)
class NewestValues(SideKind):
    """Time and value of the `n` newest events, in order of time. Events at one time stand in order of arrival."""

    n: int

    word, reads = "last_k", frozenset({"number", "time"})

    @property
    def name(self) -> str:
        """The word and `n`."""
        return f"last_k {self.n}"

    @property
    def most_bytes(self) -> int:
        """The length of `n` events."""
        return self.n * _EVENT.size

    def add(self, held: bytes, time_ms: int, value: float | str) -> bytes:
        """Inserts the event by its time; with more than n events, drops the oldest."""
        size = _EVENT.size
        place = len(held) // size
        if place and time_ms < _EVENT.unpack_from(held, len(held) - size)[0]:
            place = bisect_right([time for time, _ in _EVENT.iter_unpack(held)], time_ms)
        at = place * size
        return (held[:at] + _EVENT.pack(time_ms, float(value)) + held[at:])[-self.n * size :]

    def merge(self, held: Sequence[bytes]) -> bytes:
        """The last n of all, since tiles come in order of time."""
        return b"".join(held)[-self.n * _EVENT.size :]

    def show(self, held: bytes) -> str:
        """The values."""
        return ", ".join(repr(value) for value in values_of(held))


def values_of(held: bytes) -> list[float]:
    """The values alone, oldest first."""
    return [value for _, value in _EVENT.iter_unpack(held)]


@dataclass(frozen=True, kw_only=True)
class LastK(Aggregation):
    """The values of the newest `n` events in which the column is not null, oldest first."""

    n: int = 10

    word, gives = "last_k", list

    @property
    def slots(self) -> tuple[Slot, ...]:
        """One slot, which holds n values."""
        return (Slot(NewestValues(self.n), self.column),)

    @property
    def label(self) -> str:
        """The declared name, or one with the number of values, such as "last_5_price"."""
        return self.name or f"last_{self.n}_{self.column}"

    @property
    def mistake(self) -> str:
        """Whether n is out of range."""
        return "" if isinstance(self.n, int) and 1 <= self.n <= MOST else f"n is {self.n!r}; keep between 1 and {MOST} values"

    def read(self, *slots: bytes) -> float | list[float]:
        """The values; NaN over no events."""
        return values_of(slots[0]) or math.nan


def last_k(column: str, n: int, *, windows: Sequence[str] | None = None, name: str | None = None) -> LastK:
    """Values of the newest n events, oldest first, as a list. Without windows, over the whole life of the entity."""
    return LastK(column=column, n=n, windows=tuple(windows or (LIFETIME,)), name=name)
