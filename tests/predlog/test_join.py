"""The join gives what a naive search over all records gives, however they are interleaved, repeated, cut and restarted."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.records import ResultRecord
from tidemill_predlog.join import Join, Outcome, Prediction

WITHIN_MS = {"m": 100, "n": 10_000}
HOUR_MS = 3_600_000
Item = Prediction | Outcome
Answer = tuple[str, str, int, float | None]


def prediction(name: str, time: int = 0, subject: str | None = "s", model: str = "m") -> Prediction:
    """A prediction."""
    return Prediction(name, model, "1", subject, time, 0.5)


def outcome(known: int, value: float = 1.0, subject: str = "s", model: str = "m") -> Outcome:
    """An outcome."""
    return Outcome(model, subject, value, known)


def answers(join: Join) -> list[Answer]:
    """The results since the last call: prediction, status, known, outcome."""
    return [(result.prediction, result.status, result.known, result.outcome) for result in join.take()]


def test_outcome_after_and_before() -> None:
    """An outcome answers predictions that wait for it and those that come later."""
    join = Join(WITHIN_MS)
    join.predict(prediction("a"))
    assert join.pending["m"] == 1
    join.outcome(outcome(50))
    join.predict(prediction("b", 60))
    assert answers(join) == [("a", "joined", 50, 1.0), ("b", "joined", 50, 1.0)]
    assert join.pending["m"] == 0


def test_result_carries_the_prediction() -> None:
    """A result repeats what a reader needs of its prediction."""
    join = Join(WITHIN_MS)
    join.predict(Prediction("a", "m", "7", "s", 5, 0.25))
    join.outcome(outcome(9, 0.0))
    assert join.take() == [ResultRecord(0, "a", "m", "7", "s", 5, 0.25, "joined", 9, 0.0)]


def test_several_predictions_of_one_subject() -> None:
    """One outcome answers all predictions of its subject, and of its model alone."""
    join = Join(WITHIN_MS)
    for name in ("a", "b"):
        join.predict(prediction(name))
    join.predict(prediction("c", model="n"))
    join.predict(prediction("d", subject="t"))
    join.outcome(outcome(1))
    assert [answer[0] for answer in answers(join)] == ["a", "b"]


def test_first_outcome_counts() -> None:
    """A second outcome changes nothing, neither for those answered nor for those to come."""
    join = Join(WITHIN_MS)
    join.outcome(outcome(10, 1.0))
    join.outcome(outcome(10, 0.0))
    join.outcome(outcome(5, 0.0))
    join.predict(prediction("a"))
    assert answers(join) == [("a", "joined", 10, 1.0)]


def test_repeated_prediction_counts_once() -> None:
    """A record with the same id is a repetition, also once the first has its result."""
    join = Join(WITHIN_MS)
    join.predict(prediction("a"))
    join.predict(prediction("a", 3, "other"))
    join.outcome(outcome(1))
    join.predict(prediction("a"))
    assert len(answers(join)) == 1
    assert join.accepted["m"] == 1


def test_without_subject_or_model_nothing_is_joined() -> None:
    """A prediction without a subject, and records of a model that is not declared, leave no trace."""
    join = Join(WITHIN_MS)
    join.predict(prediction("a", subject=None))
    join.predict(prediction("b", model="gone"))
    join.outcome(outcome(1, model="gone"))
    join.advance(10**9)
    assert answers(join) == []


@pytest.mark.parametrize(("known", "status"), [(-101, "never"), (-100, "joined"), (100, "joined"), (101, "never")])
@pytest.mark.parametrize("first", ["prediction", "outcome"])
def test_both_ends_of_the_wait(known: int, status: str, first: str) -> None:
    """An outcome published exactly `within` before or after counts, one millisecond more does not, whichever record came first."""
    join = Join(WITHIN_MS)
    items: list[Item] = [prediction("a"), outcome(known)]
    for item in items if first == "prediction" else reversed(items):
        feed(join, item)
    join.advance(101)
    assert [answer[1] for answer in answers(join)] == [status]


def test_never_when_the_clock_passes_the_deadline() -> None:
    """At the deadline a prediction still waits; one millisecond later it is given up, and the end of the wait is told."""
    join = Join(WITHIN_MS)
    join.predict(prediction("a"))
    join.advance(100)
    assert answers(join) == []
    join.advance(101)
    assert answers(join) == [("a", "never", 100, None)]
    assert join.pending["m"] == 0


def test_clock_does_not_go_back() -> None:
    """An earlier time leaves the clock where it is."""
    join = Join(WITHIN_MS)
    join.advance(500)
    join.advance(100)
    assert join.clock == 500


def test_prediction_after_its_deadline() -> None:
    """A prediction that comes when the clock is past its deadline is answered at once."""
    join = Join(WITHIN_MS, 150)
    join.outcome(outcome(20, subject="t"))
    join.predict(prediction("a"))
    join.predict(prediction("b", subject="t"))
    assert answers(join) == [("a", "never", 100, None), ("b", "joined", 20, 1.0)]


def test_prediction_at_its_deadline_still_waits() -> None:
    """A prediction that comes exactly at its deadline may still be answered."""
    join = Join(WITHIN_MS, 100)
    join.predict(prediction("a"))
    assert answers(join) == []
    join.outcome(outcome(100))
    assert answers(join) == [("a", "joined", 100, 1.0)]


def test_what_comes_after_its_memory_leaves_nothing() -> None:
    """Records older than the memory are answered but not kept, so that a restart, which does not see them, changes nothing."""
    join = Join(WITHIN_MS, 2 * HOUR_MS)
    join.outcome(outcome(0))
    join.predict(prediction("a"))
    join.predict(prediction("a"))
    assert answers(join) == [("a", "never", 100, None)] * 2
    join.outcome(outcome(2 * HOUR_MS - 200, subject="t"))
    join.predict(prediction("b", 2 * HOUR_MS - 200, "t"))
    assert answers(join) == [("b", "joined", 2 * HOUR_MS - 200, 1.0)]


def test_late_outcomes_are_counted() -> None:
    """An outcome that finds its prediction given up is counted once and changes nothing."""
    join = Join(WITHIN_MS)
    join.predict(prediction("a"))
    join.advance(101)
    join.take()
    join.outcome(outcome(90))
    join.outcome(outcome(95))
    assert answers(join) == []
    assert join.late["m"] == 1


_subjects = st.sampled_from(["s", "t", "u"])
_models = st.sampled_from(["m", "m", "n", "gone"])
_predictions = st.builds(
    lambda i, time, subject, model: Prediction(f"{model}{i}", model, "1", subject, time, 0.5),
    st.integers(0, 12), st.integers(0, 600), st.one_of(_subjects, st.none()), _models,
)  # fmt: skip
_outcomes = st.builds(Outcome, _models, _subjects, st.floats(0, 1), st.integers(0, 800))
_streams = st.tuples(st.lists(_predictions, max_size=15), st.lists(_outcomes, max_size=15))


def naive(predictions: Sequence[Prediction], outcomes: Sequence[Outcome], clock: int) -> dict[str, tuple[str, float | None]]:
    """What each prediction should get, by searching everything."""
    found: dict[str, tuple[str, float | None]] = {}
    seen = set()
    for item in predictions:
        within_ms = WITHIN_MS.get(item.model)
        if within_ms is None or item.subject is None or item.id in seen:
            continue
        seen.add(item.id)
        fitting = [o for o in outcomes if (o.model, o.subject) == (item.model, item.subject) and abs(o.known - item.time) <= within_ms]
        if fitting:
            found[item.id] = ("joined", fitting[0].value)
        elif item.time + within_ms < clock:
            found[item.id] = ("never", None)
    return found


def feed(join: Join, item: Item) -> None:
    """One record."""
    if isinstance(item, Prediction):
        join.predict(item)
    else:
        join.outcome(item)


def interleaved(chance: random.Random, predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> list[Item]:
    """Both streams as one, each in its own order."""
    picks = [0] * len(predictions) + [1] * len(outcomes)
    chance.shuffle(picks)
    sources: list[Iterator[Item]] = [iter(predictions), iter(outcomes)]
    return [next(sources[pick]) for pick in picks]


def as_dict(results: Sequence[ResultRecord]) -> dict[str, tuple[str, float | None]]:
    """By prediction; fails when one has two results."""
    found: dict[str, tuple[str, float | None]] = {result.prediction: (result.status, result.outcome) for result in results}
    assert len(found) == len(results)
    return found


@given(_streams, st.randoms(use_true_random=False), st.integers(0, 1000))
def test_any_interleaving_equals_the_naive_search(
    streams: tuple[list[Prediction], list[Outcome]], chance: random.Random, clock: int
) -> None:
    """With the clock moved once all is read, the results do not depend on how the streams were interleaved."""
    join = Join(WITHIN_MS)
    for item in interleaved(chance, *streams):
        feed(join, item)
    join.advance(clock)
    assert as_dict(join.take()) == naive(*streams, clock)
    assert join.pending.total() == 0 or clock <= 600 + max(WITHIN_MS.values())


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
    return item.known if isinstance(item, Outcome) else item.time


@given(_streams, st.randoms(use_true_random=False), st.lists(st.integers(0, 1000), max_size=6), st.integers(0, 30), st.booleans())
def test_restart_at_any_point_changes_nothing(
    streams: tuple[list[Prediction], list[Outcome]], chance: random.Random, clocks: list[int], restart: int, short: bool
) -> None:
    """A join made again from the records its memory reaches, and the clock, goes on as the one that never stopped."""
    steps: list[Item | int] = list(interleaved(chance, *streams))
    for clock in clocks:
        steps.insert(chance.randrange(len(steps) + 1), clock)
    restart = min(restart, len(steps))
    within_ms = {"m": 50, "n": 90}
    with pytest.MonkeyPatch.context() as patch:
        if short:
            patch.setattr("tidemill_predlog.join._HOUR_MS", 0)
        whole = Join(within_ms)
        before = run(whole, steps[:restart])
        again = Join(within_ms, whole.clock)
        old = [item for item in steps[:restart] if not isinstance(item, int) and known_of(item) >= whole.clock - again.memory_ms]
        found = run(again, [*sorted(old, key=lambda item: isinstance(item, Prediction)), whole.clock])
        assert {result.prediction for result in found} <= {result.prediction for result in before}
        assert +again.pending == +whole.pending
        assert sorted(run(again, steps[restart:]), key=repr) == sorted(run(whole, steps[restart:]), key=repr)


@given(_streams, st.randoms(use_true_random=False))
def test_clock_driven_by_what_was_read_gives_up_none_too_early(
    streams: tuple[list[Prediction], list[Outcome]], chance: random.Random
) -> None:
    """Sorted by time and with a clock that follows, nobody whose outcome came in time is given up."""
    both: list[Item] = [*streams[0], *streams[1]]
    items = sorted(both, key=known_of)
    join = Join(WITHIN_MS)
    for item in items:
        feed(join, item)
        join.advance(known_of(item))
    predictions = [item for item in items if isinstance(item, Prediction)]
    outcomes = [item for item in items if isinstance(item, Outcome)]
    assert as_dict(join.take()) == naive(predictions, outcomes, join.clock)


def test_memory_is_bounded_by_the_horizon() -> None:
    """However long the stream, what is kept is that of the last hours; nothing is left once the clock is past it."""
    join = Join({"m": 100})
    for i in range(20_000):
        time = i * HOUR_MS // 1000
        join.predict(prediction(f"p{i}", time, f"s{i}"))
        join.outcome(outcome(time, subject=f"s{i + i % 2}"))
        join.advance(time)
    kept = [
        join._waiting,
        join._answers,
        join._seen,
        join._given_up,
        join._deadlines,
        join._answers_end,
        join._seen_end,
        join._given_up_end,
    ]
    assert max(map(len, kept)) < 1500  # type: ignore[arg-type]
    join.advance(30 * HOUR_MS)
    assert not any(kept)
    assert len(join.take()) == 20_000
