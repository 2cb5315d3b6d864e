"""The kinds of slots. A slot is what a tile stores of one column.

One class says all about a kind: its empty value, what one event does to it, and how tiles are merged. Streaming, audit, training sets
and request-time reads all run this code, so they agree to the bit. A `FloatKind` is one or more float64 in the row of a tile; a `SideKind`
is bytes of varying, bounded length beside the row.

The effect of an event on a `FloatKind` is a line of Python source. The kernel compiles the lines of all slots of a view into one function:
a method call per slot would cost several times as much, on the hottest path of the system. In a line,

    s       is the tile
    t       is the event's time in ms
    x       is the column's value, never null
    {i}     is the place of the kind in the tile; {i1} is the next place
    {word}  is the place of another kind, which `needs` names
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
"""The largest length of one side value of one tile, in bytes."""


@dataclass(frozen=True)
class SlotKind(ABC):
    """`word`: its name in fingerprints and tools, which must never change. `reads`: the parts of an event that it uses; a kind that reads
    neither number nor text takes columns of any type. `needs`: kinds of the same column that its source or its merge refers to by word.
    `rank`: in a tile, slots of lower rank stand before it and are folded before it."""

    word: ClassVar[str]
    reads: ClassVar[frozenset[Input]]
    needs: ClassVar[tuple[SlotKind, ...]] = ()
    rank: ClassVar[int] = 9

    @property
    def name(self) -> str:
        """The word, and the parameters of the kind if its class has some."""
        return self.word

    @property
    def sees_value(self) -> bool:
        """Whether it uses the value of a column, and not only whether it is null."""
        return not self.reads.isdisjoint(("number", "text"))


@dataclass(frozen=True)
class FloatKind(SlotKind):
    """`empty`: its numbers in a tile without events. `fold`: the source line for an event. `ufunc`: numpy's reduction for a
    merge, if there is one; "add" is computed once for all columns."""

    empty: ClassVar[tuple[float, ...]]
    fold: ClassVar[str]
    ufunc: ClassVar[Literal["add", "minimum", "maximum"] | None] = None

    def merge(self, tiles: Matrix, places: Mapping[str, int], merged: Sequence[float]) -> list[float]:
        """Its numbers, merged from two or more tiles in order of time. `tiles`: float64 of shape (tiles, width); `places`: its own first
        place as "i", and the places of `needs` by word; `merged`: the sum of each column of `tiles`."""
        raise NotImplementedError(f"{type(self).__name__} has neither ufunc nor merge")

    def merge_each(self, tiles: Matrix, places: Mapping[str, int], merged: Matrix) -> Matrix | list[list[float]]:
        """`merge` for many windows that have equally many tiles, to the same bits: shape (windows, numbers). `tiles`: (windows, tiles, width);
        `merged`: (windows, width). A kind may override it to be faster."""
        return [self.merge(each, places, sums.tolist()) for each, sums in zip(tiles, merged, strict=True)]


@dataclass(frozen=True)
class SideKind(SlotKind):
    """A value of varying length beside the tile's numbers; b"" in a tile without events. It depends only on the events in their order."""

    @property
    @abstractmethod
    def most_bytes(self) -> int:
        """Its largest length, at most SIDE_BYTES."""

    @abstractmethod
    def add(self, held: bytes, time_ms: int, value: float | str) -> bytes:
        """The value after one event."""

    @abstractmethod
    def merge(self, held: Sequence[bytes]) -> bytes:
        """The merged value of several tiles in order of time; b"" for no tiles."""

    @abstractmethod
    def show(self, held: bytes) -> str:
        """Its content, as text for a person."""


@dataclass(frozen=True)
class Slot:
    """A part of a tile: a kind, and the column that it stores something of (None: every event, null or not)."""

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
        """The sum of all M2 and of all n_i (mean_i - mean)^2. Chan, Golub and LeVeque (1979)."""
        i, n, total = places["i"], places["n"], places["sum"]
        return [merged[i] + _m2_between(tiles[:, n], tiles[:, total], merged[n], merged[total])]

    def merge_each(self, tiles: Matrix, places: Mapping[str, int], merged: Matrix) -> Matrix:
        """The windows that have equally many tiles with a value are computed together."""
        n, total, found = tiles[..., places["n"]], tiles[..., places["sum"]], merged[:, places["i"]].copy()
        seen = n > 0
        many = seen.sum(axis=1)
        for count in set(many.tolist()) - {0}:
            of = (many == count).nonzero()[0]
            numbers, totals = (column[of][seen[of]].reshape(-1, count) for column in (n, total))
            spread = totals / numbers
            spread -= (merged[of, places["sum"]] / merged[of, places["n"]])[:, None]
            spread *= spread
            spread *= numbers
            found[of] += spread.sum(axis=1)
        return found[:, None]


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
    """Value of the newest event. Of two events at one time, the one that arrived later is the newer. It is folded before `NewestTime`,
    since it reads the old time."""

    word, reads, rank = "last", frozenset({"number", "time"}), 5
    needs = (NewestTime(),)
    empty, fold = (math.nan,), "if t >= s[{last_time}]: s[{i}] = x"

    def merge(self, tiles: Matrix, places: Mapping[str, int], merged: Sequence[float]) -> list[float]:
        """The value of the tile with the newest event; of equal times the later tile wins, as in the fold."""
        times = tiles[:, places["last_time"]]
        return [float(tiles[len(times) - 1 - int(times[::-1].argmax()), places["i"]])]

    def merge_each(self, tiles: Matrix, places: Mapping[str, int], merged: Matrix) -> Matrix:
        """The same tile of each window."""
        backwards = tiles[:, ::-1]
        newest = backwards[..., places["last_time"]].argmax(axis=1)
        return backwards[range(len(tiles)), newest, places["i"], None]
