"""Which events a partition of a view's log had lately, so that a batch that is published again counts once, whatever its size.

The rule depends on the log alone. The log's time at a record is the newest moment at which this record or one before it became known. This
time is cut into parts of a third of what is remembered. A record repeats an earlier one of the same entity and id if their parts are the same
or at most three apart: so whatever is remembered for 30 minutes is known for 30 to 40.

The log's time never goes back. So what lies in older parts is never asked for again, however late or wrong the moments of single records are.

Each record is a hash of 64 bits, some 24 bytes in memory: the newest in a set, the others in a sorted array, of which a Bloom filter (two
bits a record) says nearly always that a new one is not there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

PARTS = 3
PACK_RECORDS = 16_384  # so few stay in a set, which is faster
_PACK_SHARE = 8  # of many, an eighth: a set needs 90 bytes a record, and packing reads all that its part has
_BITS = 8  # of the filter, a record, at least: then one of 20 new records is looked for in the arrays

Turn = tuple[int, int]
"""The number of a part of time, counted from 1970 on, and the offset of its first record."""

_Hashes = npt.NDArray[np.int64]
_NONE: _Hashes = np.empty(0, np.int64)


class Recent:
    """The entities and ids of the records that a log had lately. `for_ms`: for how long each is remembered at least; `turns`: of a log that
    has records already, as the property gives them; what these held is told by `remember`.

    `turn_ms`: a record that became known then or later begins a new part.
    """

    def __init__(self, for_ms: int, turns: Sequence[Turn] = ()) -> None:
        self._part_ms = part_ms(for_ms)
        self._turns = list(turns)
        self._sets: list[set[int]] = [set() for _ in turns]
        self._packed: list[_Hashes] = [_NONE for _ in turns]
        self._filter = _Filter(0)
        self._settle()

    @property
    def records(self) -> int:
        """How many records are remembered; a repetition may be one more."""
        return sum(map(len, self._sets)) + sum(map(len, self._packed))

    @property
    def turns(self) -> list[Turn]:
        """The parts that are remembered, the oldest first. Parts without a record are left out."""
        return list(self._turns)

    def turn(self, known_ms: int, offset: int) -> None:
        """Begins the part of a moment that is not before `turn_ms`. `offset`: of the record that became known then."""
        part = known_ms // self._part_ms
        kept = [i for i, (other, _) in enumerate(self._turns) if other >= part - PARTS]
        self._turns = [*(self._turns[i] for i in kept), (part, offset)]
        self._sets = [*(self._sets[i] for i in kept), set()]
        self._packed = [*(self._packed[i] for i in kept), _NONE]
        if self._filter.size:
            self._filter = _Filter(0)  # what is forgotten is in it
            self._pack()
        self._settle()

    def again(self, entity: bytes, event_id: str) -> bool:
        """Whether the newest record, whose part has begun, repeats an earlier one. It is remembered from then on."""
        told = hash((entity, event_id))
        own = self._own
        if told in own:
            return True
        if len(own) >= self._room:
            self._pack()
            own = self._own
        own.add(told)
        for others in self._earlier:
            if told in others:
                return True
        bits = self._bits
        return bool(bits) and bits[told >> 3 & self._mask] >> (told & 7) & 1 == 1 and self._holds(told)

    def remember(self, offset: int, entity: bytes, event_id: str) -> None:
        """Takes in a record that the log has had in one of the parts."""
        part = self._sets[bisect_right(self._turns, offset, key=lambda turn: turn[1]) - 1]
        part.add(hash((entity, event_id)))
        if len(part) >= self._room:
            self._pack()

    def copy(self) -> Self:
        """Another one that remembers the same."""
        other = type(self)(1)
        other._part_ms, other._turns, other._sets = self._part_ms, list(self._turns), [set(told) for told in self._sets]
        other._packed, other._filter = list(self._packed), self._filter  # a filter that another one adds to says yes more often, no more
        other._settle()
        return other

    def _holds(self, told: int) -> bool:
        """Whether the arrays have it. The filter's first bit says that they may."""
        if not self._bits[told >> 35 & self._mask] >> (told >> 32 & 7) & 1:
            return False
        for packed in self._packed:
            place = int(packed.searchsorted(told))
            if place < len(packed) and packed[place] == told:
                return True
        return False

    def _pack(self) -> None:
        """Moves what the sets have into the arrays, and the filter."""
        news = [np.fromiter(told, np.int64, len(told)) for told in self._sets]
        for i, new in enumerate(news):
            if len(new):
                self._packed[i] = _merged(self._packed[i], new)
                self._sets[i] = set()
        count = sum(map(len, self._packed))
        if self._filter.size < _BITS * count:
            self._filter = _Filter(2 * _BITS * count)
            news = self._packed
        for new in news:
            self._filter.add(new)
        self._settle()

    def _settle(self) -> None:
        """What `again` uses, looked up once."""
        self.turn_ms = (self._turns[-1][0] + 1) * self._part_ms if self._turns else 0
        self._own = self._sets[-1] if self._sets else set()
        self._earlier = tuple(self._sets[:-1])
        self._bits, self._mask = self._filter.bits, len(self._filter.bits) - 1
        self._room = max(PACK_RECORDS, sum(map(len, self._packed)) // _PACK_SHARE)


def _merged(packed: _Hashes, new: _Hashes) -> _Hashes:
    """Both, sorted, each hash once. `packed` is sorted: merging costs less than sorting all again, and NumPy's own unions far more."""
    both = np.sort(np.concatenate([packed, np.sort(new)]), kind="stable")
    once: _Hashes = both[np.append(True, both[1:] != both[:-1])]
    return once


class _Filter:
    """Two bits for each hash. `size`: how many bits it has, a power of two, at least as many as are asked for; 0: it is empty for ever."""

    def __init__(self, size: int) -> None:
        self.size = 1 << (size - 1).bit_length() if size else 0
        self.bits = bytearray(self.size >> 3)

    def add(self, hashes: _Hashes) -> None:
        """Sets the bits that `Recent.again` looks at."""
        if not len(hashes):
            return
        bits = np.frombuffer(self.bits, np.uint8)
        for few in np.array_split(hashes, len(hashes) // 65_536 + 1):
            for told in (few, few >> 32):
                np.bitwise_or.at(bits, told >> 3 & len(bits) - 1, np.left_shift(1, told & 7).astype(np.uint8))


def part_ms(for_ms: int) -> int:
    """The length of the parts of time for what is remembered so long."""
    return -(-for_ms // PARTS)


def kept_ms(for_ms: int) -> int:
    """What became known so long before a record, or longer, is never compared with it where records lie in the order of known."""
    return (PARTS + 1) * part_ms(for_ms)
