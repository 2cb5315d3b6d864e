"""Which faults strike, in which order: by seed alone."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tests.faults.injections.injection import Injection

MORE_CHANCE, MOST = 0.95, 8  # that another fault strikes with those chosen; how many strike at once at most
LONG_SECONDS, LONG_ROUNDS = 8.0, 3
SERVERS = frozenset({"kafka", "valkey"})


class Fault(NamedTuple):
    """Injections that strike at once, and the seed of all chance in them."""

    number: int
    injections: tuple[Injection, ...]
    seed: int
    pause_seconds: float

    @property
    def name(self) -> str:
        """What strikes."""
        return " + ".join(injection.name for injection in self.injections)


def schedule(seed: int, catalogue: Sequence[Injection], allowed: Callable[[Injection], bool]) -> Iterator[Fault]:
    """Faults without end: every kind once, in some order, then again in another. Most strike at once, where their targets differ:
    with each others that take about as long, since all wait for the longest.

    Kinds that take long are in every third round only.

    `allowed` is asked when a fault is due: what must not strike now is left out this time. Raises ValueError when that leaves nothing for
    as long as every kind would have been due.
    """
    pick = random.Random(seed)
    number, last_turn = 0, -1
    for turn in itertools.count():
        if turn - last_turn > LONG_ROUNDS:
            raise ValueError(
                f"none of the chosen kinds may strike here now: {', '.join(kind.name for kind in catalogue) or 'no kind is left'}"
            )
        round_ = [kind for kind in pick.sample(list(catalogue), len(catalogue)) if kind.seconds <= LONG_SECONDS or turn % LONG_ROUNDS == 0]
        round_.sort(key=lambda kind: bool(kind.targets))  # alone ones first: a store that is emptied folds again all that came until then
        while round_:
            struck = [round_.pop(0)]
            more, seed_, pause = pick.random() < MORE_CHANCE, pick.randrange(2**32), round(pick.uniform(0.1, 0.8), 2)
            if not allowed(struck[0]):
                continue
            while more:
                others = [kind for kind in round_ if allowed(kind) and all(disjoint(one, kind) for one in struck)]
                if not others:
                    break
                other = min(others, key=lambda kind: abs(kind.seconds - struck[0].seconds))
                round_.remove(other)
                struck.append(other)
                more = len(struck) < MOST and pick.random() < MORE_CHANCE
            number, last_turn = number + 1, turn
            yield Fault(number, tuple(struck), seed_, pause)


def third(kinds: Sequence[Injection], number: int) -> tuple[Injection, ...]:
    """Every third kind of each target, `number` 1, 2 or 3: each third strikes everywhere where there are as many."""
    by_target: defaultdict[tuple[str, ...], list[Injection]] = defaultdict(list)
    for kind in kinds:
        by_target[kind.targets[:1]].append(kind)
    chosen = {kind.name for turn, group in enumerate(by_target.values()) for kind in group[(turn + number) % 3 :: 3]}
    return tuple(kind for kind in kinds if kind.name in chosen)


def disjoint(one: Injection, other: Injection) -> bool:
    """Whether two may strike at once: no target of one is one of the other; what has none stands alone, and longer ones do not meet a server's:
    while a server is away for long, nothing comes by the points where others strike.

    A Redis that loses writes and an inference that ends are not one fault but two: that limit of repeated requests is told in decision 0015.
    """
    apart = bool(one.targets and other.targets) and not set(one.targets) & set(other.targets)
    apart = apart and (one.seconds + other.seconds < 12 or SERVERS.isdisjoint(one.targets + other.targets))
    return apart and not _forgotten(one, other)


def beside(one: Injection, other: Injection) -> bool:
    """Whether two of two schedules may strike at once. They may share a service, as long as none stops a server under the other."""
    return SERVERS.isdisjoint({*one.targets} & {*other.targets}) and not _forgotten(one, other)


def _forgotten(one: Injection, other: Injection) -> bool:
    return (one.rewinds and "inference" in other.targets) or (other.rewinds and "inference" in one.targets)
