"""The order in which the records of several old partitions follow each other in one new partition. Pure logic.

Two orders must hold. An entity's records keep theirs, so each old partition is read in its own order. And a fold skips a record whose source
offset is not above the last one seen of that source partition, so source offsets must ascend. Ingestion writes to partitions side by side, and two
of its processes in no common order, so the two can contradict each other: a1 before b2 in one partition, b1 before a2 in another, with a2 before
a1 and b2 before b1 at the source. Then one record has to leave its source's order; it is marked, and the copy gives it a source of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

Source = tuple[int, int]
"""Partition and offset of an event on the application's topic."""


class MergeStep(NamedTuple):
    """The next record of a queue. `moved`: a later record of the same source partition has gone before it."""

    queue: int
    moved: bool


def merge(queues: Sequence[Sequence[Source]]) -> Iterator[MergeStep]:
    """Which queue gives the next record, until all are empty. In each queue the offsets of every source partition ascend.

    No record is moved unless the orders contradict each other. The same queues always give the same steps.
    """
    waiting = _SourceOrder(queues)
    places, left, turn = [0] * len(queues), sum(map(len, queues)), 0
    last: dict[int, int] = {}
    chased: set[int] = set()
    while left:
        if places[turn] == len(queues[turn]):
            turn = (turn + 1) % len(queues)
            continue
        partition, offset = queues[turn][places[turn]]
        moved = offset <= last.get(partition, -1)
        if not moved:
            earlier = waiting.first(partition, last.get(partition, -1))
            if earlier[0] < offset and turn not in chased:
                chased.add(turn)  # the queue that has the earlier record goes first, unless that leads back here
                turn = earlier[1]
                continue
            last[partition] = offset
        chased.clear()
        places[turn] += 1
        left -= 1
        yield MergeStep(turn, moved)


class _SourceOrder:
    """The records of each source partition in order of their offsets, with the queue that has them."""

    def __init__(self, queues: Sequence[Sequence[Source]]) -> None:
        self._order: dict[int, list[Source]] = {}
        for number, queue in enumerate(queues):
            for partition, offset in queue:
                self._order.setdefault(partition, []).append((offset, number))
        for order in self._order.values():
            order.sort()
        self._places = dict.fromkeys(self._order, 0)

    def first(self, partition: int, above: int) -> Source:
        """Offset and queue of the first record above an offset; there is one."""
        order, place = self._order[partition], self._places[partition]
        while order[place][0] <= above:
            place += 1
        self._places[partition] = place
        return order[place]
