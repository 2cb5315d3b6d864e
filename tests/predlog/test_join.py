"""The rules of the join, one by one."""

from __future__ import annotations

import pytest

from tidemill.declarations.models import Wait
from tidemill.records import ResultRecord
from tidemill_predlog.join import Join, KnownOutcome, LoggedPrediction

WAITS = {"m": Wait(100), "n": Wait(10_000)}
HOUR_MS = 3_600_000
Item = LoggedPrediction | KnownOutcome
Answer = tuple[str, str, int, float | str | None]


def prediction(name: str, time: int = 0, subject: str | None = "s", model: str = "m") -> LoggedPrediction:
    """A prediction."""
    return LoggedPrediction(name, model, "1", subject, time, 0.5)


def outcome(known: int, value: float = 1.0, subject: str = "s", model: str = "m", event: str | None = None) -> KnownOutcome:
    """An outcome."""
    return KnownOutcome(model, subject, value, known, event)


def feed(join: Join, item: Item) -> None:
    """One record."""
    if isinstance(item, LoggedPrediction):
        join.predict(item)
    else:
        join.outcome(item)


def answers(join: Join) -> list[Answer]:
    """The results since the last call: prediction, status, known, outcome."""
    return [(result.prediction, result.status, result.known, result.outcome) for result in join.take()]


def test_outcome_answers_what_comes_before_and_after_it_in_the_log() -> None:
    """An outcome answers predictions that wait for it, and those of an earlier time that are logged later."""
    join = Join(WAITS)
    join.predict(prediction("a"))
    assert join.pending["m"] == 1
    join.outcome(outcome(50))
    join.predict(prediction("b", 49))
    assert answers(join) == [("a", "joined", 50, 1.0), ("b", "joined", 50, 1.0)]
    assert join.pending["m"] == 0


def test_result_carries_the_prediction() -> None:
    """A result repeats what a reader needs of its prediction."""
    join = Join(WAITS)
    join.predict(LoggedPrediction("a", "m", "7", "s", 5, 0.25))
    join.outcome(outcome(9, 0.0))
    assert join.take() == [ResultRecord(0, "a", "m", "7", "s", 5, 0.25, "joined", 9, 0.0)]


def test_several_predictions_of_one_subject() -> None:
    """One outcome answers all predictions of its subject, and of its model alone."""
    join = Join(WAITS)
    for name in ("a", "b"):
        join.predict(prediction(name))
    join.predict(prediction("c", model="n"))
    join.predict(prediction("d", subject="t"))
    join.outcome(outcome(1))
    assert [answer[0] for answer in answers(join)] == ["a", "b"]


def test_first_outcome_counts() -> None:
    """A second outcome changes nothing, neither for those answered nor for those to come."""
    join = Join(WAITS)
    join.outcome(outcome(10, 1.0))
    join.outcome(outcome(10, 0.0))
    join.outcome(outcome(5, 0.0))
    join.predict(prediction("a"))
    assert answers(join) == [("a", "joined", 10, 1.0)]


def test_repeated_prediction_counts_once() -> None:
    """A record with the same id is a repetition, also once the first has its result."""
    join = Join(WAITS)
    join.predict(prediction("a"))
    join.predict(prediction("a", 3, "other"))
    join.outcome(outcome(1))
    join.predict(prediction("a"))
    assert len(answers(join)) == 1
    assert join.accepted["m"] == 1


def test_without_subject_or_model_nothing_is_joined() -> None:
    """A prediction without a subject, and records of a model that is not declared, leave no trace."""
    join = Join(WAITS)
    join.predict(prediction("a", subject=None))
    join.predict(prediction("b", model="gone"))
    join.outcome(outcome(1, model="gone"))
    join.advance(10**9)
    assert answers(join) == []


@pytest.mark.parametrize(("known", "status"), [(-1, "never"), (0, "never"), (1, "joined"), (100, "joined"), (101, "never")])
@pytest.mark.parametrize("first", ["prediction", "outcome"])
def test_both_ends_of_the_wait(known: int, status: str, first: str) -> None:
    """An outcome counts if it became known after the prediction's time and at most `within` later, whichever record came first."""
    join = Join(WAITS)
    items: list[Item] = [prediction("a"), outcome(known)]
    for item in items if first == "prediction" else reversed(items):
        feed(join, item)
    join.advance(101)
    assert [answer[1] for answer in answers(join)] == [status]


def test_never_when_the_clock_passes_the_deadline() -> None:
    """At the deadline a prediction still waits; one millisecond later it is given up, and the end of the wait is told."""
    join = Join(WAITS)
    join.predict(prediction("a"))
    join.advance(100)
    assert answers(join) == []
    join.advance(101)
    assert answers(join) == [("a", "never", 100, None)]
    assert join.pending["m"] == 0


def test_absent_at_the_deadline() -> None:
    """With `absent` a prediction without an outcome is joined with it when the wait is over, and not before."""
    join = Join({"m": Wait(100, 0.0)})
    join.predict(prediction("a"))
    join.advance(100)
    assert answers(join) == []
    join.advance(101)
    assert answers(join) == [("a", "joined", 100, 0.0)]
    join.outcome(outcome(50))
    assert (answers(join), join.late["m"]) == ([], 1)


def test_a_subject_that_comes_back() -> None:
    """Each prediction has its own answer: what was known of an earlier one does not answer the next."""
    join = Join(WAITS)
    join.predict(prediction("january", 0))
    join.outcome(outcome(30, 0.0))
    join.predict(prediction("february", 40))
    join.outcome(outcome(60, 1.0))
    assert answers(join) == [("january", "joined", 30, 0.0), ("february", "joined", 60, 1.0)]


def test_a_second_publication_is_no_outcome() -> None:
    """The event that answered one prediction, published again, does not answer the next one of its subject; another event does."""
    join = Join(WAITS)
    join.predict(prediction("a", 0))
    join.outcome(outcome(30, 0.0, event="x"))
    join.predict(prediction("b", 40))
    join.outcome(outcome(50, 0.0, event="x"))
    join.outcome(outcome(60, 1.0, event="y"))
    assert answers(join) == [("a", "joined", 30, 0.0), ("b", "joined", 60, 1.0)]


def test_a_publication_is_remembered_to_its_last_millisecond() -> None:
    """A second publication is known for an hour at least, or twice the wait; the one after that is an outcome of its own."""
    for later, known in ((HOUR_MS, False), (HOUR_MS + 1, True)):
        join = Join(WAITS)
        join.outcome(outcome(0, event="x"))
        join.advance(later)
        join.outcome(outcome(later, event="x"))
        join.predict(prediction("a", later - 1))
        assert bool(answers(join)) is known


def test_clock_does_not_go_back() -> None:
    """An earlier time leaves the clock where it is."""
    join = Join(WAITS)
    join.advance(500)
    join.advance(100)
    assert join.clock == 500


def test_prediction_after_its_deadline() -> None:
    """A prediction that comes when the clock is past its deadline is answered at once."""
    join = Join(WAITS, 150)
    join.outcome(outcome(20, subject="t"))
    join.predict(prediction("a"))
    join.predict(prediction("b", subject="t"))
    assert answers(join) == [("a", "never", 100, None), ("b", "joined", 20, 1.0)]
    assert join.overdue == {"m": 1}  # which is counted


def test_prediction_at_its_deadline_still_waits() -> None:
    """A prediction that comes exactly at its deadline may still be answered."""
    join = Join(WAITS, 100)
    join.predict(prediction("a"))
    assert answers(join) == []
    join.outcome(outcome(100))
    assert answers(join) == [("a", "joined", 100, 1.0)]


def test_a_prediction_that_is_logged_long_after_its_time() -> None:
    """A client that asked in vain for longer than the wait gets the first outcome of its time, not a later one and not none."""
    join = Join(WAITS)
    join.outcome(outcome(HOUR_MS + 10, value=1.0))
    join.advance(HOUR_MS + 10 + 50 * WAITS["m"].within_ms)
    join.outcome(outcome(HOUR_MS + 20, value=0.0))
    join.predict(prediction("a", HOUR_MS))
    assert answers(join) == [("a", "joined", HOUR_MS + 10, 1.0)]


def test_what_comes_after_its_memory_leaves_nothing() -> None:
    """Records older than the memory are answered but not kept, so that a restart, which does not see them, changes nothing."""
    join = Join(WAITS, 2 * HOUR_MS)
    join.outcome(outcome(0))
    join.predict(prediction("a"))
    join.predict(prediction("a"))
    assert answers(join) == [("a", "never", 100, None)] * 2
    join.outcome(outcome(2 * HOUR_MS - 200, subject="t"))
    join.predict(prediction("b", 2 * HOUR_MS - 201, "t"))
    assert answers(join) == [("b", "joined", 2 * HOUR_MS - 200, 1.0)]


def test_late_outcomes_are_counted() -> None:
    """An outcome that finds its prediction given up is counted once and changes nothing."""
    join = Join(WAITS)
    join.predict(prediction("a"))
    join.advance(101)
    join.take()
    join.outcome(outcome(90))
    join.outcome(outcome(95))
    assert answers(join) == []
    assert join.late["m"] == 1


def test_memory_is_bounded_by_the_horizon() -> None:
    """However long the stream, what is kept is that of the last hours; nothing is left once the clock is past it."""
    join = Join({"m": Wait(100)})
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
        join._published,
        join._published_end,
    ]
    assert max(map(len, kept)) < 1500  # type: ignore[arg-type]
    join.advance(30 * HOUR_MS)
    assert not any(kept)
    assert len(join.take()) == 20_000


def test_of_several_outcomes_the_newer_is_kept_when_the_older_is_forgotten() -> None:
    """Each outcome has its own time to be kept: a prediction that comes when only the newer one is left is joined with it."""
    join = Join(WAITS)
    join.outcome(outcome(0, 1.0))
    join.outcome(outcome(100, 2.0))
    join.advance(HOUR_MS + 50)  # the first is kept for an hour after 0, the second after 100
    join.predict(prediction("b", 0))
    join.predict(prediction("a", 50))
    assert answers(join) == [("b", "joined", 100, 2.0), ("a", "joined", 100, 2.0)]


def test_an_outcome_is_kept_to_its_last_millisecond() -> None:
    """It is forgotten after an hour, not at it, also when it stands beside an older one."""
    join = Join(WAITS)
    join.outcome(outcome(0, 1.0))
    join.outcome(outcome(50, 2.0))
    join.advance(HOUR_MS + 50)
    join.predict(prediction("a", 49))
    join.advance(HOUR_MS + 51)
    join.predict(prediction("b", 49))
    assert answers(join) == [("a", "joined", 50, 2.0), ("b", "never", 149, None)]


def test_of_several_predictions_each_waits_to_its_own_last_millisecond() -> None:
    """When one prediction of a subject is given up, another whose time ends at this very moment waits on."""
    join = Join(WAITS)
    join.predict(prediction("a", 0))
    join.predict(prediction("b", 10))
    join.advance(110)
    assert answers(join) == [("a", "never", 100, None)]
    assert join.pending["m"] == 1
    join.outcome(outcome(110, 3.0))
    assert answers(join) == [("b", "joined", 110, 3.0)]
