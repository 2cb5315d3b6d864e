"""The join gives what a naive search over all records gives, however they are interleaved, repeated, cut and restarted."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations.models import Wait
from tidemill.records import ResultRecord
from tidemill_predlog.join import Join, KnownOutcome, LoggedPrediction

WAITS = {"m": Wait(100), "n": Wait(10_000, 0.5)}
Item = LoggedPrediction | KnownOutcome

_subjects = st.sampled_from(["s", "t", "u"])
_models = st.sampled_from(["m", "m", "n", "gone"])
_predictions = st.builds(
    lambda i, time, subject, model: LoggedPrediction(f"{model}{i}", model, "1", subject, time, 0.5),
    st.integers(0, 12), st.integers(0, 600), st.one_of(_subjects, st.none()), _models,
)  # fmt: skip
_outcomes = st.builds(
    KnownOutcome,
    _models,
    _subjects,
    st.floats(0, 1),
    st.integers(0, 800),
    st.one_of(st.none(), st.sampled_from(["x", "y", "z"])),
    st.none() | st.integers(0, 800),
)
_streams = st.tuples(st.lists(_predictions, max_size=15), st.lists(_outcomes, max_size=15))


def naive(
    predictions: Sequence[LoggedPrediction], outcomes: Sequence[KnownOutcome], clock: int
) -> dict[str, tuple[str, float | str | None]]:
    """What each prediction should get, by searching everything."""
    found: dict[str, tuple[str, float | str | None]] = {}
    seen = set()
    for item in predictions:
        wait = WAITS.get(item.model)
        if wait is None or item.subject is None or item.id in seen:
            continue
        seen.add(item.id)
        ours = [o for o in first_publications(outcomes) if (o.model, o.subject) == (item.model, item.subject)]
        fitting = [o for o in ours if item.time < o.known <= item.time + wait.within_ms and (o.asks is None or o.asks > item.time)]
        if fitting:
            found[item.id] = ("joined", fitting[0].value)
        elif item.time + wait.within_ms < clock:
            found[item.id] = ("never" if wait.absent is None else "joined", wait.absent)
    return found


def first_publications(outcomes: Sequence[KnownOutcome]) -> list[KnownOutcome]:
    """The outcomes without the events that came before; all of them lie within the memory of the join."""
    seen: set[tuple[str, str]] = set()
    return [o for o in outcomes if o.id is None or not ((o.model, o.id) in seen or seen.add((o.model, o.id)))]  # type: ignore[func-returns-value]


def feed(join: Join, item: Item) -> None:
    """One record."""
    if isinstance(item, LoggedPrediction):
        join.predict(item)
    else:
        join.outcome(item)


def interleaved(chance: random.Random, predictions: Sequence[LoggedPrediction], outcomes: Sequence[KnownOutcome]) -> list[Item]:
    """Both streams as one, each in its own order."""
    picks = [0] * len(predictions) + [1] * len(outcomes)
    chance.shuffle(picks)
    sources: list[Iterator[Item]] = [iter(predictions), iter(outcomes)]
    return [next(sources[pick]) for pick in picks]


def as_dict(results: Sequence[ResultRecord]) -> dict[str, tuple[str, float | str | None]]:
    """By prediction; fails when one has two results."""
    found: dict[str, tuple[str, float | str | None]] = {result.prediction: (result.status, result.outcome) for result in results}
    assert len(found) == len(results)
    return found


@given(_streams, st.randoms(use_true_random=False), st.integers(0, 1000))
def test_any_interleaving_equals_the_naive_search(
    streams: tuple[list[LoggedPrediction], list[KnownOutcome]], chance: random.Random, clock: int
) -> None:
    """With the clock moved once all is read, the results do not depend on how the streams were interleaved."""
    join = Join(WAITS)
    for item in interleaved(chance, *streams):
        feed(join, item)
    join.advance(clock)
    assert as_dict(join.take()) == naive(*streams, clock)
    assert join.pending.total() == 0 or clock <= 600 + max(wait.within_ms for wait in WAITS.values())


def run(join: Join, steps: Sequence[Item | int]) -> list[ResultRecord]:
    """Feeds records and moves the clock (numbers); gives the results."""
    for step in steps:
        if isinstance(step, int):
            join.advance(step)
        else:
            feed(join, step)
    return join.take()


def known_of(item: Item) -> int:
    """The time by which a record is remembered."""
    return item.known if isinstance(item, KnownOutcome) else item.time


@given(_streams, st.randoms(use_true_random=False), st.lists(st.integers(0, 1000), max_size=6), st.integers(0, 30), st.booleans())
def test_restart_at_any_point_changes_nothing(
    streams: tuple[list[LoggedPrediction], list[KnownOutcome]], chance: random.Random, clocks: list[int], restart: int, short: bool
) -> None:
    """A join made again from the records its memory reaches, and the clock, goes on as the one that never stopped."""
    steps: list[Item | int] = list(interleaved(chance, *streams))
    for clock in clocks:
        steps.insert(chance.randrange(len(steps) + 1), clock)
    restart = min(restart, len(steps))
    waits = {"m": Wait(50), "n": Wait(90, 0.5)}
    with pytest.MonkeyPatch.context() as patch:
        if short:
            patch.setattr("tidemill_predlog.join._HOUR_MS", 0)
        whole = Join(waits)
        before = run(whole, steps[:restart])
        again = Join(waits, whole.clock)
        old = [item for item in steps[:restart] if not isinstance(item, int) and known_of(item) >= whole.clock - again.memory_ms]
        found = run(again, [*sorted(old, key=lambda item: isinstance(item, LoggedPrediction)), whole.clock])
        assert {result.prediction for result in found} <= {result.prediction for result in before}
        assert +again.pending == +whole.pending
        assert sorted(run(again, steps[restart:]), key=repr) == sorted(run(whole, steps[restart:]), key=repr)


@given(_streams, st.randoms(use_true_random=False))
def test_clock_driven_by_what_was_read_gives_up_none_too_early(
    streams: tuple[list[LoggedPrediction], list[KnownOutcome]], chance: random.Random
) -> None:
    """Sorted by time and with a clock that follows, nobody whose outcome came in time is given up."""
    both: list[Item] = [*streams[0], *streams[1]]
    items = sorted(both, key=known_of)
    join = Join(WAITS)
    for item in items:
        feed(join, item)
        join.advance(known_of(item))
    predictions = [item for item in items if isinstance(item, LoggedPrediction)]
    outcomes = [item for item in items if isinstance(item, KnownOutcome)]
    assert as_dict(join.take()) == naive(predictions, outcomes, join.clock)
