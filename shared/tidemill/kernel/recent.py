"""Which events a partition of a view's log had lately, so that a batch that is published again counts once, whatever its size.

The rule depends on the log alone. Time is cut into parts of a third of what is remembered. A record repeats an earlier one of the same entity
and id if the moments at which the two became known lie in one part, or at most three apart: so whatever is remembered for 30 minutes is known
for 30 to 40. A record that became known two parts or more before the newest one of the log is not compared, since what lies around it may be
forgotten already; its entity's own ids still tell (`EntityState.ids`).
"""

from __future__ import annotations

from typing import Self

PARTS = 3
EARLIER = 1
"""A record is compared if it became known in the newest part or at most so many parts before."""


class Recent:
    """The entities and ids of the records that became known lately. `for_ms`: for how long each is remembered at least.

    They are kept as hashes of 64 bits in sets, one for each part of time: about 70 bytes a record.
    """

    def __init__(self, for_ms: int) -> None:
        self._part_ms = part_ms(for_ms)
        self._newest = self._part = -1
        self._parts: dict[int, set[int]] = {}
        self._own: set[int] | None = None
        self._near: list[set[int]] = []

    def __len__(self) -> int:
        """How many records are remembered; a repetition in another part of time is one more."""
        return sum(map(len, self._parts.values()))

    @property
    def kept_ms(self) -> int:
        """What became known so long before the newest record, or longer, is forgotten."""
        return (PARTS + EARLIER + 1) * self._part_ms

    def again(self, entity: bytes, event_id: str, known_ms: int) -> bool:
        """Whether a record repeats an earlier one. Each record of the log is told once, in order; it is remembered from then on."""
        part = known_ms // self._part_ms
        if part != self._part:
            self._turn_to(part)
        own, told = self._own, hash((entity, event_id))
        if own is None:
            return False
        if told in own:
            return True
        own.add(told)
        for others in self._near:  # noqa: SIM110 - a loop costs half of what any() does
            if told in others:
                return True
        return False

    def copy(self) -> Self:
        """Another one that remembers the same."""
        other = type(self)(1)
        other._part_ms, other._newest = self._part_ms, self._newest
        other._parts = {part: set(told) for part, told in self._parts.items()}
        return other

    def _turn_to(self, part: int) -> None:
        self._part, self._own = part, None
        if part < self._newest - EARLIER:
            return
        self._newest = max(self._newest, part)
        for old in [old for old in self._parts if old < self._newest - EARLIER - PARTS]:
            del self._parts[old]
        self._own = self._parts.setdefault(part, set())
        self._near = [told for other, told in self._parts.items() if 0 < abs(other - part) <= PARTS]


def part_ms(for_ms: int) -> int:
    """The length of the parts of time for what is remembered so long."""
    return -(-for_ms // PARTS)
