"""The order of a copy: both orders hold, and a record leaves its source's order only where they contradict each other."""

from __future__ import annotations

import random
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.operations.repartition.merge import Source, merge

Queues = list[list[Source]]


def sent(queues: Queues) -> list[tuple[Source, bool]]:
    """The records in the order of the merge, with what it says of each."""
    places = [iter(queue) for queue in queues]
    return [(next(places[step.queue]), step.moved) for step in merge(queues)]


def ascends(order: list[Source]) -> bool:
    """Whether the offsets of every source partition ascend."""
    last: dict[int, int] = {}
    for partition, offset in order:
        if offset <= last.get(partition, -1):
            return False
        last[partition] = offset
    return True


def contradictory(queues: Queues) -> bool:
    """Whether no order fits both: looks for a way round in the graph of "comes before", for each record anew."""
    after: dict[Source, set[Source]] = {source: set() for queue in queues for source in queue}
    for queue in queues:
        for one, two in pairwise(queue):
            after[one].add(two)
    for one in after:
        after[one] |= {two for two in after if two[0] == one[0] and two[1] > one[1]}

    def reachable(start: Source) -> set[Source]:
        seen: set[Source] = set()
        waiting = list(after[start])
        while waiting:
            found = waiting.pop()
            if found not in seen:
                seen.add(found)
                waiting += after[found]
        return seen

    return any(source in reachable(source) for source in after)


@st.composite
def logs(draw: st.DrawFn) -> Queues:
    """Old partitions: every record of two or three sources in one of them, each source's in order within a partition, any interleaving."""
    number = draw(st.integers(1, 4))
    chance = draw(st.randoms(use_true_random=False))
    queues: Queues = [[] for _ in range(number)]
    for partition in range(draw(st.integers(1, 3))):
        mine: Queues = [[] for _ in range(number)]
        for offset in range(draw(st.integers(0, 6))):
            chance.choice(mine).append((partition, offset * 3))
        queues = [shuffled_together(one, two, chance) for one, two in zip(queues, mine, strict=True)]
    return queues


def shuffled_together(one: list[Source], two: list[Source], chance: random.Random) -> list[Source]:
    """Two lists as one, each in its order."""
    one, two, made = list(one), list(two), []
    while one or two:
        made.append((one if one and (not two or chance.random() < 0.5) else two).pop(0))
    return made


@pytest.mark.slow
@settings(max_examples=500)
@given(logs())
def test_both_orders_hold(queues: Queues) -> None:
    """Every record comes once and each queue keeps its order; records not moved ascend, and a moved one comes after a later one."""
    order = sent(queues)
    assert sorted(source for source, _ in order) == sorted(source for queue in queues for source in queue)
    for queue in queues:
        assert [source for source, _ in order if source in queue] == queue
    assert ascends([source for source, moved in order if not moved])
    for i, (source, moved) in enumerate(order):
        later = any(s[0] == source[0] and s[1] > source[1] for s, other in order[:i] if not other)
        assert moved == later


@pytest.mark.slow
@settings(max_examples=500)
@given(logs())
def test_moved_only_where_it_must_be(queues: Queues) -> None:
    """A record is moved exactly when the oracle finds that no order fits."""
    assert any(moved for _, moved in sent(queues)) == contradictory(queues)


@settings(max_examples=100)
@given(logs())
def test_the_oracle(queues: Queues) -> None:
    """For few records the oracle says what trying every interleaving says."""
    queues = [queue[:2] for queue in queues[:3]]
    turns = [number for number, queue in enumerate(queues) for _ in queue]
    fits = False
    for choice in set(permutations(turns)):
        places = [iter(queue) for queue in queues]
        fits |= ascends([next(places[number]) for number in choice])
    assert contradictory(queues) == (not fits)


@given(logs())
def test_the_same_queues_give_the_same_order(queues: Queues) -> None:
    """Nothing but the queues decides: a copy that was interrupted is continued by making it again."""
    assert list(merge(queues)) == list(merge([list(queue) for queue in queues]))


def test_two_writers_in_opposite_orders() -> None:
    """Two processes of ingestion whose waves reached two partitions in opposite orders: one record of four is moved."""
    queues = [[(0, 5), (1, 3)], [(1, 4), (0, 4)]]
    order = sent(queues)
    assert [source for source, moved in order if moved] in ([(0, 4)], [(1, 3)])


@pytest.mark.parametrize("queues", [[], [[]], [[], [(0, 1)], []], [[(0, 1), (0, 2), (7, 0)]]])
def test_the_smallest_logs(queues: Queues) -> None:
    """Nothing, one record, one queue."""
    assert sent(queues) == [(source, False) for queue in queues for source in queue]


def test_a_long_log_takes_time_in_proportion() -> None:
    """A hundred thousand records of one writer, in waves over eight partitions: each is looked at about once."""
    chance = random.Random(1)
    queues: Queues = [[] for _ in range(8)]
    for wave in range(1_000):
        for partition in range(4):
            for i in range(25):
                chance.choice(queues).append((partition, wave * 25 + i))
    order = sent(queues)
    assert len(order) == 100_000
    assert not any(moved for _, moved in order)
