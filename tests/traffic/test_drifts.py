"""The language of drifts: what is meant, and what every mistake is told."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.traffic.shops import PAID, PLACED, project

from tidemill.errors import TidemillError
from tidemill.traffic.drifts import KINDS, Drift, parse_drift

OF = project()


@pytest.mark.parametrize(
    ("text", "drift"),
    [
        ("amount:shift=2 after=60s", Drift("amount", "shift", 2.0, 60_000)),
        ("placed.amount:scale=-1.5 after=1m until=2m", Drift("placed.amount", "scale", -1.5, 60_000, 120_000)),
        ("channel:unseen=0.3", Drift("channel", "unseen", 0.3)),
        ("coupon:missing until=10s", Drift("coupon", "missing", 1.0, 0, 10_000)),
        ("measured:lost after=5s", Drift("measured", "lost", 1.0, 5_000)),
        ("paid:late=2h", Drift("paid", "late", 7_200_000.0)),
        ("outcome:flip=.5", Drift("outcome", "flip", 0.5)),
        ("outcome:rate=0.9", Drift("outcome", "rate", 0.9)),
        ("outcome:late=1s", Drift("outcome", "late", 1_000.0)),
    ],
)
def test_what_is_written_is_meant(text: str, drift: Drift) -> None:
    """Target, kind, amount, and the stretch of time."""
    assert parse_drift(text, project()) == drift


@pytest.mark.parametrize(
    ("text", "cause", "mend"),
    [
        ("amount", "'amount' is no drift", "for example 'amount:shift=2 after=60s'"),
        ("amount:shfit=2", "'shfit=2' is no drift", "shift"),
        ("amount:shift", "shift needs an amount", "this is added to a number"),
        ("amount:shift=much", "'much' is no number", "for example"),
        ("amount:shift=nan", "'nan' is no number", ""),
        ("channel:unseen=1.5", "'1.5' is no share", "between 0 and 1"),
        ("paid:late=soon", "'soon' is not a duration", ""),
        ("amount:shift=2 60s", "'60s' says nothing", "after=60s"),
        ("amount:shift=2 after=60", "'60' is not a duration", ""),
        ("amount:shift=2 after=60s until=30s", "it ends before it begins", "after after="),
        ("amuont:shift=2", "there is no field 'amuont'", "amount"),
        ("placed.color:shift=2", "there is no field 'placed.color'", "name one of order"),
        ("pait:lost", "there is no event 'pait'", "paid"),
        ("channel:shift=2", "'channel' of placed is no number", "unseen="),
        ("amount:unseen=1", "'amount' of placed is no text", "shift="),
        ("amount:missing=0.5", "'amount' of placed may not be null", "| None"),
        ("order:unseen", "'order' of placed is its id", "another field"),
        ("placed.at:shift=5", "'at' of placed is its time", "late= moves events"),
        ("paid:flip", "flip changes outcomes", "write outcome:flip"),
        ("outcome:shift=2", "shift changes a field", "name the field"),
    ],
)
def test_a_mistake_is_told(text: str, cause: str, mend: str) -> None:
    """What is wrong, and what to write instead; the text itself is named."""
    with pytest.raises(TidemillError) as raised:
        parse_drift(text, project())
    assert cause in raised.value.message
    assert repr(text) in raised.value.message
    assert mend in raised.value.mend


@settings(max_examples=20)
@given(st.text(max_size=30))
def test_any_text_is_a_drift_or_a_told_mistake(text: str) -> None:
    """Nothing else is raised."""
    for written in (text, f"amount:{text}", f"{text}:shift=1", f"amount:shift={text}", f"amount:shift=1 {text}"):
        with suppress(TidemillError):
            assert parse_drift(written, OF).kind in KINDS


def test_a_drift_holds_for_its_time() -> None:
    """From after= on, and no longer than until=."""
    drift = Drift("amount", "shift", 1.0, 1_000, 2_000)
    assert [drift.holds(at) for at in (0, 999, 1_000, 1_999, 2_000)] == [False, False, True, True, False]
    assert Drift("amount", "shift", 1.0).holds(10**9)


def test_a_field_is_named_alone_or_with_its_event() -> None:
    """Alone it is the field of every event that has it."""
    assert [Drift("shop", "unseen", 1.0).is_of_field(event, "shop") for event in (PLACED, PAID)] == [True, True]
    assert [Drift("paid.shop", "unseen", 1.0).is_of_field(event, "shop") for event in (PLACED, PAID)] == [False, True]
    assert not Drift("paid", "lost", 1.0).is_of_field(PAID, "paid")


def test_outcomes_need_a_model() -> None:
    """Without one there is nothing to flip."""
    of = project()
    of.models.clear()
    with pytest.raises(TidemillError, match="the project has no model"):
        parse_drift("outcome:flip", of)


def test_a_rate_is_of_what_is_true_or_false() -> None:
    """Where all outcomes are classes it is refused."""
    of = project()
    del of.models["late"], of.models["back"]
    with pytest.raises(TidemillError, match="no outcome is a condition"):
        parse_drift("outcome:rate=0.5", of)
    assert parse_drift("outcome:flip", of).amount == 1.0
