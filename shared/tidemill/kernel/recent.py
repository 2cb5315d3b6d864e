"""Which events a partition of a view's log had lately, so that a batch that is published again counts once, whatever its size.

The rule depends on the log alone. The log's time at a record is the newest moment at which this record or one before it became known. This
time is cut into parts of a third of what is remembered. A record repeats an earlier one of the same entity and id if their parts are the same
or at most three apart: so whatever is remembered for 30 minutes is known for 30 to 40.

The log's time never goes back. So what lies in older parts is never asked for again, however late or wrong the moments of single records are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Self

PARTS = 3

Turn = tuple[int, int]
"""The number of a part of time, counted from 1970 on, and the offset of its first record."""


class Recent:
    """The entities and ids of the records that a log had lately. `for_ms`: for how long each is remembered at least; `turns`: of a log that
    has records already, as the property gives them; what these held is told by `remember`.

    They are kept as hashes of 64 bits in sets, one for each part of time: about 70 bytes a record. `turn_ms`: a record that became known then
    or later begins a new part.
    """

    def __init__(self, for_ms: int, turns: Sequence[Turn] = ()) -> None:
        self._part_ms = part_ms(for_ms)
        self._turns = list(turns)
        self._sets: list[set[int]] = [set() for _ in turns]
        self._settle()

    @property
    def records(self) -> int:
        """How many records are remembered; a repetition in another part of time is one more."""
        return sum(map(len, self._sets))

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
        self._settle()

    def again(self, entity: bytes, event_id: str) -> bool:
        """Whether the newest record, whose part has begun, repeats an earlier one. It is remembered from then on."""
        told = hash((entity, event_id))
        if told in self._own:
            return True
        self._own.add(told)
        for others in self._earlier:  # noqa: SIM110 - a loop costs half of what any() does
            if told in others:
                return True
        return False

    def remember(self, offset: int, entity: bytes, event_id: str) -> None:
        """Takes in a record that the log has had in one of the parts."""
        self._sets[bisect_right(self._turns, offset, key=lambda turn: turn[1]) - 1].add(hash((entity, event_id)))

    def copy(self) -> Self:
        """Another one that remembers the same."""
        other = type(self)(1)
        other._part_ms, other._turns, other._sets = self._part_ms, list(self._turns), [set(told) for told in self._sets]
        other._settle()
        return other

    def _settle(self) -> None:
        self.turn_ms = (self._turns[-1][0] + 1) * self._part_ms if self._turns else 0
        self._own = self._sets[-1] if self._sets else set()
        self._earlier = tuple(self._sets[:-1])


def part_ms(for_ms: int) -> int:
    """The length of the parts of time for what is remembered so long."""
    return -(-for_ms // PARTS)


def kept_ms(for_ms: int) -> int:
    """What became known so long before a record, or longer, is never compared with it where records lie in the order of known."""
    return (PARTS + 1) * part_ms(for_ms)
