"""Slots: what a tile keeps of a column, and the kinds there are.

A kind says everything about itself in one class: how it begins, what one event does to it, and how tiles are merged. Streaming, audit, training
sets and request-time reads all run what stands here, so that they agree to the bit. `FloatKind`s are one or more float64 in the row of a tile;
`SideKind`s are bytes of varying, bounded length beside it.

What an event does is Python source, which the kernel compiles into one function for all slots of a view: calling a method per slot would
cost several times as much on the hottest path of the system. In it `s` is the tile; `t` the event's time in ms; `x` the column's value, never
null; `{i}` the place of the kind in the tile and `{i1}` the one after it; a word in braces the place of another kind that is needed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float64]

Input = Literal["number", "text", "time"]
SIDE_BYTES = 65_535
"""The most that one side value of one tile may take."""


@dataclass(frozen=True)
class SlotKind(ABC):
    """`word`: its name in fingerprints and tools, never to be changed. `reads`: what of an event it looks at; a kind that reads neither
    number nor text counts a column of any type. `needs`: kinds of the same column that its source or its merge refers to by word.
    `rank`: among the slots of a tile it stands, and is folded, after those of lower rank."""

    word: ClassVar[str]
    reads: ClassVar[frozenset[Input]]
    needs: ClassVar[tuple[SlotKind, ...]] = ()
    rank: ClassVar[int] = 9

    @property
    def name(self) -> str:
        """The word, with what tells this kind from others of its class."""
        return self.word

    @property
    def sees_value(self) -> bool:
        """Whether it looks at more of a column than whether it is null."""
        return not self.reads.isdisjoint(("number", "text"))


@dataclass(frozen=True)
class FloatKind(SlotKind):
    """`empty`: its numbers in a tile without events. `fold`: what an event does to them. `ufunc`: the reduction of numpy that merges them, where
    there is one; "add" is done for all columns at once."""

    empty: ClassVar[tuple[float, ...]]
    fold: ClassVar[str]
    ufunc: ClassVar[Literal["add", "minimum", "maximum"] | None] = None

    def merge(self, tiles: Matrix, places: Mapping[str, int], merged: Sequence[float]) -> list[float]:
        """Its numbers merged from two or more tiles in order of time. `tiles`: float64 of shape (tiles, width); `places`: its own first place
        as "i", and by word those of the kinds needed; `merged`: the sum of each column."""
        raise NotImplementedError(f"{type(self).__name__} has neither ufunc nor merge")


@dataclass(frozen=True)
class SideKind(SlotKind):
    """A value of varying length beside the tile's numbers, b"" in a tile without events. All of it must follow from the order of the log alone."""

    @property
    @abstractmethod
    def most_bytes(self) -> int:
        """The longest it gets, at most SIDE_BYTES."""

    @abstractmethod
    def add(self, held: bytes, time_ms: int, value: float | str) -> bytes:
        """What an event makes of it."""

    @abstractmethod
    def merge(self, held: Sequence[bytes]) -> bytes:
        """Those of several tiles in order of time, as one; of none, b""."""

    @abstractmethod
    def show(self, held: bytes) -> str:
        """What it says, for a person."""


@dataclass(frozen=True)
class Slot:
    """What a tile keeps: a kind and the column it belongs to (None: every event, null or not)."""

    kind: SlotKind
    column: str | None


@dataclass(frozen=True)
class N(FloatKind):
    """How many events."""

    word, reads, rank = "n", frozenset(), 0
    empty, fold, ufunc = (0.0,), "s[{i}] = s{i} = s[{i}] + 1.0", "add"


@dataclass(frozen=True)
class Total(FloatKind):
    """Sum of the values."""

    word, reads, rank = "sum", frozenset({"number"}), 1
    empty, fold, ufunc = (0.0,), "s[{i}] = s{i} = s[{i}] + x", "add"


@dataclass(frozen=True)
class M2(FloatKind):
    """Sum of the squared differences from the mean: Welford's update, written with the running count and sum."""

    word, reads, rank = "m2", frozenset({"number"}), 2
    needs = (N(), Total())
    empty = (0.0,)
    fold = "if s{n} > 1.0: s[{i}] += (x - (s{sum} - x) / (s{n} - 1.0)) * (x - s{sum} / s{n})"

    def merge(self, tiles: Matrix, places: Mapping[str, int], merged: Sequence[float]) -> list[float]:
        """The sum of all, and of n_i (mean_i - mean)^2. Chan, Golub and LeVeque (1979)."""
        i, n, total = places["i"], places["n"], places["sum"]
        return [merged[i] + _m2_between(tiles[:, n], tiles[:, total], merged[n], merged[total])]


def _m2_between(n: Matrix, total: Matrix, n_all: float, total_all: float) -> float:
    seen = n > 0
    if not seen.all():
        n, total = n[seen], total[seen]
    if not n_all:
        return 0.0
    spread = total / n
    spread -= total_all / n_all
    spread *= spread
    spread *= n
    return float(spread.sum())


@dataclass(frozen=True)
class Smallest(FloatKind):
    """The smallest value."""

    word, reads, rank = "min", frozenset({"number"}), 3
    empty, fold, ufunc = (math.inf,), "if x < s[{i}]: s[{i}] = x", "minimum"


@dataclass(frozen=True)
class Largest(FloatKind):
    """The largest value."""

    word, reads, rank = "max", frozenset({"number"}), 4
    empty, fold, ufunc = (-math.inf,), "if x > s[{i}]: s[{i}] = x", "maximum"


@dataclass(frozen=True)
class NewestTime(FloatKind):
    """Time of the newest event, in ms."""

    word, reads, rank = "last_time", frozenset({"time"}), 6
    empty, fold, ufunc = (-math.inf,), "if t >= s[{i}]: s[{i}] = t", "maximum"


@dataclass(frozen=True)
class NewestValue(FloatKind):
    """Value of the newest event; of two at one time, of the one that arrived later. It is folded before the time that it reads."""

    word, reads, rank = "last", frozenset({"number", "time"}), 5
    needs = (NewestTime(),)
    empty, fold = (math.nan,), "if t >= s[{last_time}]: s[{i}] = x"

    def merge(self, tiles: Matrix, places: Mapping[str, int], merged: Sequence[float]) -> list[float]:
        """That of the tile with the newest event; of equals the later one, as in the fold."""
        times = tiles[:, places["last_time"]]
        return [float(tiles[len(times) - 1 - int(times[::-1].argmax()), places["i"]])]
