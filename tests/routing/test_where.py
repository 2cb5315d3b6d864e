"""A view's `where`: only events for which it is true become its records, and the rest are counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, count, mean
from tidemill.declarations.project import Project
from tidemill.routing.router import Router
from tidemill.streams.topics import dead_letters_topic, view_topic

T0 = 1_700_000_000_000
FIELDS = {"at": int, "taxi": str | None, "zone": int, "payment": str | None, "tip": float | None, "ok": bool}
TRIP = Event("trip", FIELDS, time="at")
ALL = FeatureView("every", TRIP, "taxi", [count()])
CASH = FeatureView("cash", TRIP, "taxi", [count()], where="payment == 'Cash'")
ZONES = FeatureView("zones", TRIP, "zone", [count()], where="payment == 'Cash'")
TIPS = FeatureView("tips", TRIP, "taxi", [mean("tip")], windows=["1h"], where="ok", ahead="1m")
TOWN = Project("town", {"trip": TRIP}, {view.name: view for view in (ALL, CASH, ZONES, TIPS)})


def topic(view: FeatureView) -> str:
    """Where the view's records go."""
    return view_topic("town", view.log)


def routed(router: Router, time_ms: int = T0, known_ms: int = T0, **data: Any) -> dict[str, dict[str, Any]]:
    """The values of one event's records by topic."""
    event = {"at": time_ms, "taxi": "t", "zone": 1, "payment": "Cash", "tip": 1.0, "ok": True} | data
    found = router.route("trip", 0, 0, known_ms, None, json.dumps(event).encode(), ())
    return {topic: json.loads(value).get("values", {}) for topic, _, _, value in found}


def test_an_event_goes_to_the_views_that_it_is_true_for() -> None:
    """The fields of the condition are not in the record unless the view folds them."""
    router = Router(TOWN)
    assert routed(router) == {topic(ALL): {}, topic(CASH): {}, topic(ZONES): {}, topic(TIPS): {"tip": 1.0}}
    assert routed(router, payment="Card", ok=False) == {topic(ALL): {}}
    assert (router.passed_over, router.unkeyed, router.refused) == ({topic(CASH): 1, topic(ZONES): 1, topic(TIPS): 1}, {}, {})


def test_null_is_not_true() -> None:
    """A condition over a field that is null passes the event over, and counts it once: not as one without a key too."""
    router = Router(TOWN)
    assert routed(router, payment=None, taxi=None, ok=False) == {}
    assert router.passed_over == {topic(CASH): 1, topic(ZONES): 1, topic(TIPS): 1}
    assert router.unkeyed == {topic(ALL): 1}


def test_what_is_passed_over_is_not_too_far_ahead() -> None:
    """A dead letter of a view is about an event that would feed it."""
    router, letters = Router(TOWN), dead_letters_topic("town")
    assert letters in routed(router, time_ms=T0 + 120_000)
    assert letters not in routed(router, time_ms=T0 + 120_000, ok=False)


@given(payments=st.lists(st.sampled_from(["Cash", "Card", None]), max_size=8))
def test_what_is_made_and_what_is_passed_over_are_all_events(payments: list[str | None]) -> None:
    """Each event is the one or the other, in every view."""
    router = Router(TOWN)
    made = [topic(CASH) in routed(router, payment=payment) for payment in payments]
    assert made == [payment == "Cash" for payment in payments]
    assert router.passed_over[topic(CASH)] == made.count(False)


@pytest.mark.parametrize("view", [ALL, CASH, TIPS])
def test_the_fields_that_a_record_is_made_from(view: FeatureView) -> None:
    """The key, what is folded, and what the condition reads, each once."""
    assert view.read_fields == {"every": ["taxi"], "cash": ["taxi", "payment"], "tips": ["taxi", "tip", "ok"]}[view.name]
