"""Which outcome answers which question: the rule beside plain Python, and beside the join of the prediction log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations.models import Wait
from tidemill.training.answers import NONE, Announced, Outcomes, answers, questions
from tidemill_predlog.join import Join, KnownOutcome, LoggedPrediction

NEVER = 10**6


class Asked(NamedTuple):
    """An announcing event: subject, the time that it names, when it became known, its id."""

    subject: int
    at: int
    known: int
    id: int


class Came(NamedTuple):
    """An outcome event. `asks`: the moment of its own question; NEVER for one that asks none."""

    subject: int
    known: int
    value: float
    id: int
    asks: int


_ids = st.sampled_from([NONE, NONE, 1, 2, 3])
_asked = st.lists(st.builds(Asked, st.integers(0, 2), st.integers(0, 40), st.integers(0, 60), _ids), max_size=12)
_asks = st.just(NEVER) | st.integers(0, 40)
_came = st.lists(st.builds(Came, st.integers(-1, 2), st.integers(0, 60), st.floats(0, 1), _ids, _asks), max_size=12)
_waits = st.builds(Wait, st.integers(0, 30), st.sampled_from([None, 0.0, 0.5]))


def once(events: Sequence[Asked | Came]) -> list[int]:
    """The places of events without second publications."""
    seen, kept = set[int](), []
    for place, event in enumerate(events):
        if event.id == NONE or event.id not in seen:
            kept.append(place)
        seen.add(event.id)
    return kept


def naive(asked: list[Asked], came: list[Came], wait: Wait, until: int) -> dict[int, float | str | None]:
    """Place of the announcing event -> the answer."""
    asked = [event if max(event.at, event.known) < until else Asked(-9, 0, 0, NONE) for event in asked]
    found: dict[int, float | str | None] = {}
    came = [event for event in came if event.known < until]
    outcomes = [came[place] for place in once(came)]
    for place in once(asked):
        subject, at, *_ = asked[place]
        if subject >= 0:
            mine = [event for event in outcomes if event.subject == subject and event.asks > at]
            fits = [event.value for event in mine if at < event.known <= at + wait.within_ms]
            over = at + wait.within_ms < until
            found[place] = None if wait.absent is not None and not over else fits[0] if fits else wait.absent
    return found


def ours(asked: list[Asked], came: list[Came], wait: Wait, until: int) -> dict[int, float | None]:
    """The same from the module, and in order of time."""
    announced = Announced(*(np.array([event[i] for event in asked], np.int64) for i in range(4)))
    subject, known, value, event_id, asks = (np.array([event[i] for event in came]) for i in range(5))
    asks_ms = None if all(event.asks == NEVER for event in came) else asks.astype(np.int64)
    outcomes = Outcomes(subject.astype(np.int64), known.astype(np.int64), value.astype(np.float64), event_id.astype(np.int64), asks_ms)
    places = questions(announced, until)
    assert places.tolist() == sorted(places.tolist(), key=lambda place: (asked[place].at, asked[place].subject))
    found = answers(announced.subjects[places], announced.at_ms[places], outcomes, wait, until)
    values = [None if math.isnan(answer) else answer for answer in found.tolist()]
    return dict(zip(places.tolist(), values, strict=True))


@given(_asked, _came, _waits, st.integers(0, 70))
def test_the_rule_in_plain_python(asked: list[Asked], came: list[Came], wait: Wait, until: int) -> None:
    """Subjects that come back, outcomes before their questions, late ones, doubled events, and none: the naive search says the same."""
    asked, came = sorted(asked, key=lambda event: event.known), sorted(came, key=lambda event: event.known)
    assert ours(asked, came, wait, until) == naive(asked, came, wait, until)


@given(_asked, _came, _waits, st.integers(0, 70))
def test_the_join_follows_the_same_rule(asked: list[Asked], came: list[Came], wait: Wait, until: int) -> None:
    """A prediction for each question, joined with the outcomes as they are logged, gets the answer of the training set."""
    asked = sorted((event for event in asked if max(event.at, event.known) < until), key=lambda event: event.known)
    came = sorted((event for event in came if event.known < until), key=lambda event: event.known)
    labels = ours(asked, came, wait, until)
    join = Join({"m": wait})
    predictions = [LoggedPrediction(str(place), "m", "1", str(asked[place].subject), asked[place].at, 0.5) for place in labels]
    outcomes = [
        KnownOutcome("m", str(o.subject), o.value, o.known, None if o.id == NONE else str(o.id), None if o.asks == NEVER else o.asks)
        for o in came
    ]
    both: list[LoggedPrediction | KnownOutcome] = [*predictions, *outcomes]
    for item in sorted(both, key=lambda item: item.time if isinstance(item, LoggedPrediction) else item.known):
        if isinstance(item, LoggedPrediction):
            join.predict(item)
        else:
            join.outcome(item)
    join.advance(until)
    joined = {
        result.prediction: result.outcome
        for result in join.take()
        if wait.absent is None or result.time + wait.within_ms < until  # a label waits until the wait is over, a result does not
    }
    assert {str(place): answer for place, answer in labels.items() if answer is not None} == {
        prediction: outcome for prediction, outcome in joined.items() if outcome is not None
    }


@pytest.mark.parametrize(("known", "answer"), [(9, None), (10, None), (11, 1.0), (30, 1.0), (31, None)])
def test_both_ends_of_the_wait(known: int, answer: float | None) -> None:
    """After the question's time, and not later than the end of the wait."""
    assert ours([Asked(0, 10, 5, NONE)], [Came(0, known, 1.0, NONE, NEVER)], Wait(20), 100) == {0: answer}


@pytest.mark.parametrize(("until", "answer"), [(30, None), (31, 0.0)])
def test_absent_once_the_wait_is_over(until: int, answer: float | None) -> None:
    """Not a moment earlier."""
    assert ours([Asked(0, 10, 5, NONE)], [], Wait(20, 0.0), until) == {0: answer}
