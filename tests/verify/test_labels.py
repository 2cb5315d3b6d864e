"""Questions and answers of a model in SQL, beside the rule said in plain Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.verify.archive import Raw, archived

from tidemill.declarations import Event, Model, Outcome, Request
from tidemill.verify.labels import labelled

ASKED = Event("asked", {"at": int, "when": str, "who": str | None, "amount": float}, time="at")
LEFT = Event("left", {"at": int, "who": int | None, "x": float | None}, time="at")
LEFT_BY_NAME = Event("left", {"at": int, "who": str | None, "x": float | None}, time="at")
WITHIN_MS = 5
T0 = 1_700_000_000_000


def model(at: str = "at", value: str = "x > 1", absent: float | None = None) -> Model:
    """A model that asks whether someone leaves."""
    return Model(
        "leaving",
        ASKED,
        at,
        "who",
        [Request("amount")],
        Outcome(LEFT_BY_NAME, value, "who", within=f"{WITHIN_MS}ms", absent=absent),
        lambda: None,
    )


@st.composite
def streams(draw: st.DrawFn, outcome: bool) -> list[Raw]:
    """Events in a few milliseconds, in two partitions, with doubled ids."""
    raws = []
    for offset in range(draw(st.integers(0, 6))):
        known_ms, at_ms = T0 + draw(st.integers(0, 12)), T0 + draw(st.integers(0, 12))
        data: dict[str, Any] = {"at": at_ms, "who": draw(st.sampled_from(("a", "b", None)))}
        text = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).isoformat()
        data |= {"x": draw(st.sampled_from((0.0, 2.0, None)))} if outcome else {"when": text, "amount": 1.0}
        id = draw(st.sampled_from((None, "1", "2", "3")))
        raws.append(Raw("left" if outcome else "asked", draw(st.integers(0, 1)), offset, known_ms, at_ms, id, data))
    return raws


def once(raws: list[Raw]) -> list[Raw]:
    """In the order of known, each id once."""
    found: dict[Any, Raw] = {}
    for raw in sorted(raws, key=lambda raw: (raw.known_ms, raw.topic, raw.partition, raw.offset)):
        found.setdefault((raw.partition, raw.offset) if raw.id is None else raw.id, raw)
    return list(found.values())


def naive(asked: list[Raw], left: list[Raw], until_ms: int) -> dict[tuple[int, int], tuple[str, int, float | None]]:
    """The place of each event that asks -> subject, time and answer."""
    questions = once([raw for raw in asked if raw.known_ms < until_ms and raw.data["at"] < until_ms and raw.data["who"] is not None])
    outcomes = once([raw for raw in left if raw.known_ms < until_ms and None not in (raw.data["who"], raw.data["x"])])
    found = {}
    for question in questions:
        who, at_ms = question.data["who"], question.data["at"]
        fitting = (float(raw.data["x"] > 1) for raw in outcomes if raw.data["who"] == who and at_ms < raw.known_ms <= at_ms + WITHIN_MS)
        found[question.partition, question.offset] = who, at_ms, next(fitting, None)
    return found


@given(streams(False), streams(True), st.integers(0, 14), st.sampled_from(("at", "when")))
def test_an_answer_is_the_first_outcome_within_the_wait(asked: list[Raw], left: list[Raw], until: int, at: str) -> None:
    """Never one that was known before the question, nor a doubled one; a time may be text."""
    found = labelled(model(at), archived(ASKED, asked), archived(LEFT_BY_NAME, left), T0 + until)
    shown = {tuple(one.announcement.place[1:]): (one.subject, one.at_ms, one.label) for one in found}
    assert shown == naive(asked, left, T0 + until)
    assert len(shown) == len(found)
    assert [one.at_ms for one in found] == sorted(one.at_ms for one in found)


def test_subjects_are_compared_as_text_and_fields_may_lie_aside() -> None:
    """A subject that is a whole number in one event and text in the other; an outcome that was declared after it was archived."""
    outcome = Outcome(LEFT, "x", "who", within="5ms")
    asks = Model("leaving", ASKED, "at", "who", [Request("amount")], outcome, lambda: None)
    asked = archived(ASKED, [Raw("asked", 0, 0, T0, T0, None, {"at": T0, "who": "7", "when": "", "amount": 1.0})])
    left = archived(LEFT, [Raw("left", 0, 0, T0 + 1, T0, None, {"at": T0, "who": 7, "x": 3})], frozenset({"x", "who"}))
    (one,) = labelled(asks, asked, left, T0 + 9)
    assert (one.subject, one.label) == ("7", 3.0)


@pytest.mark.parametrize(("until", "label"), [(5, None), (6, 0.0)])
def test_absence_is_an_answer_once_the_wait_is_over(until: int, label: float | None) -> None:
    """Not a moment earlier."""
    asks = model(absent=0)
    asked = archived(ASKED, [Raw("asked", 0, 0, T0, T0, None, {"at": T0, "who": "a", "when": "", "amount": 1.0})])
    (one,) = labelled(asks, asked, archived(LEFT_BY_NAME, []), T0 + until)
    assert one.label == label
