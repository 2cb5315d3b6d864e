"""Traffic as it is made: seeded, in order, accepted by the project, and changed by drifts in nothing but what they say."""

from __future__ import annotations

import math
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.traffic.shops import BACK, LATE, PLACED, START_MS, made, of_event, project, values

import tidemill as tm
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.testing import World
from tidemill.traffic.acts import Act, TrafficPlan, acts
from tidemill.traffic.changed import truth_of
from tidemill.traffic.published import instance, published


def key_of(act: Act) -> tuple[str, str, Any]:
    """What is the same of an act with and without drifts."""
    return act.event, act.model, act.row.get("order") or act.row.get("rating") or act.row["at"]


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), rate=st.floats(0.5, 20), delay=st.integers(0, 5_000))
def test_the_same_seed_gives_the_same_acts(seed: int, rate: float, delay: int) -> None:
    """To the last digit; another start moves times and ids alone, another seed changes values."""
    first, again = (made(seed=seed, rate=rate, delay_ms=delay, seconds=2.0) for _ in range(2))
    assert first == again
    later = list(acts(project(), TrafficPlan(seed=seed, rate=rate, delay_ms=delay, seconds=2.0), START_MS + 1_000))
    assert [(act.offset_ms, act.event, act.model, act.truth) for act in later] == [
        (act.offset_ms, act.event, act.model, act.truth) for act in first
    ]
    assert [act.row.get("amount") for act in later] == [act.row.get("amount") for act in first]
    assert {act.subject for act in later if act.subject}.isdisjoint(act.subject for act in first)
    assert [act.row for act in made(seed=seed + 1, rate=rate, delay_ms=delay, seconds=2.0)] != [act.row for act in first]


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), events=st.integers(1, 200))
def test_acts_come_in_order_and_within_bounds(seed: int, events: int) -> None:
    """Moments never go back; no more events than wanted; questions end in time, and each comes before its event."""
    found = made(seed=seed, events=events, seconds=5.0)
    assert all(one.offset_ms <= other.offset_ms for one, other in pairwise(found))
    assert sum(not act.model for act in found) <= events
    assert all(act.offset_ms < 5_000 for act in found if act.model)
    places: dict[str, list[str]] = {}
    for act in found:
        if act.event == "placed":
            places.setdefault(act.row["order"], []).append(act.model)
    assert all(models in (["late", "stars", "back", ""], ["late", "stars", "back"]) for models in places.values())


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6))
def test_the_project_takes_every_event(seed: int) -> None:
    """By the code of ingestion: types, keys, times, paths and units; nothing is a dead letter."""
    world, of = World(project()), project()
    for act in made(seed=seed, seconds=2.0):
        if not act.model:
            world.publish(act.event, published(of.events[act.event], act.row), at=START_MS + act.offset_ms)
    assert world.dead_letters == []
    assert world.features("shops", "shop0")["count_7d"].status in ("PRESENT", "NOT_FOUND")


def test_values_come_on_both_sides_of_conditions() -> None:
    """Late and not late, all classes, returns and none: there is something to learn, and it follows from what requests give."""
    found = made(seconds=15.0)
    late = [act.truth for act in of_event(found, "paid")]
    assert 0.2 < sum(map(float, late)) / len(late) < 0.8  # type: ignore[arg-type]
    assert set(values(found, "rated", "stars")) == {"bad", "good", "great"}
    returned, asked = len(of_event(found, "returned")), sum(act.model == "back" for act in found)
    assert 0 < returned < asked / 2
    by_channel = {name: [float(act.truth or 0) for act in of_event(found, "paid") if _channel(found, act) == name] for name in "abcd"}
    means = [sum(truths) / len(truths) for truths in by_channel.values()]
    assert max(means) - min(means) > 0.1


def _channel(found: list[Act], paid: Act) -> str:
    by_order = {act.row["order"]: str(act.row["channel"])[-1] for act in found if act.event == "placed"}
    return by_order[paid.subject]


def test_an_outcome_is_about_its_question() -> None:
    """It comes after the delay, names the subject, has the entity of the question, and its truth is what the declaration makes of it."""
    found = made()
    asked = {act.subject: act for act in found if act.model == "late"}
    for act in of_event(found, "paid"):
        assert act.answers == "late"
        assert act.offset_ms == asked[act.subject].offset_ms + 2_000
        assert (act.row["order"], act.row["shop"]) == (act.subject, asked[act.subject].row["shop"])
        assert act.truth == truth_of(LATE, act.row) == float(act.row["days_late"] > 3)
    assert len(of_event(found, "paid")) == len(asked)


@pytest.mark.parametrize(
    ("drift", "event", "name"),
    [
        ("amount:shift=100 after=5s", "placed", "amount"),
        ("pieces:scale=3 after=5s", "placed", "pieces"),
        ("degrees:shift=-7.5 after=5s", "measured", "degrees"),
    ],
)
def test_a_drift_changes_its_field_alone_and_from_its_moment_on(drift: str, event: str, name: str) -> None:
    """Everything else is as without it, outcomes too."""
    plain, moved = made(), made(drift)
    assert [key_of(act) for act in plain if act.model] == [key_of(act) for act in moved if act.model]
    for before, after in zip(of_event(plain, event), of_event(moved, event), strict=True):
        assert {**before.row, name: 0} == {**after.row, name: 0}
        value = before.row[name]
        wanted = value if before.offset_ms < 5_000 else value * 3 if "scale" in drift else value + (100 if "amount" in drift else -7.5)
        assert after.row[name] == pytest.approx(wanted)
    for outcome in ("paid", "rated", "returned"):
        assert of_event(plain, outcome) == of_event(moved, outcome)


@settings(max_examples=10)
@given(
    seed=st.integers(0, 10**6), after=st.integers(1, 3),
    text=st.sampled_from(["amount:scale=2", "channel:unseen", "coupon:missing", "measured:lost", "outcome:flip", "outcome:rate=0", "outcome:late=1s"]),
)  # fmt: skip
def test_nothing_changes_before_a_drift_begins(seed: int, after: int, text: str) -> None:
    """Of any kind: what was sent until then is the same, act for act."""
    plain, moved = (
        [act for act in found if act.offset_ms < after * 1_000] for found in (_short(seed), _short(seed, f"{text} after={after}s"))
    )
    assert moved == plain


def _short(seed: int, *drifts: str) -> list[Act]:
    return made(*drifts, seed=seed, seconds=3.0, delay_ms=500)


def test_shares_are_as_they_are_written() -> None:
    """Unseen, missing and lost ones, within what chance does."""
    plain = made(seconds=20.0)
    known = set(values(plain, "placed", "channel"))
    unseen = [value not in known for value in values(made("channel:unseen=0.3", seconds=20.0), "placed", "channel")]
    assert sum(unseen) / len(unseen) == pytest.approx(0.3, abs=0.1)
    missing = [value is None for value in values(made("weight:missing=0.5", seconds=20.0), "placed", "weight")]
    assert sum(missing) / len(missing) == pytest.approx(0.5, abs=0.1)
    lost = len(of_event(made("measured:lost=0.25", seconds=20.0), "measured"))
    assert lost / len(of_event(plain, "measured")) == pytest.approx(0.75, abs=0.1)
    assert of_event(made("measured:lost"), "measured") == []
    assert len([act for act in made("measured:lost") if act.event == "placed"]) == len([act for act in made() if act.event == "placed"])


def test_flipped_outcomes_are_others() -> None:
    """A condition, classes, and an absence that is an answer; each of all outcomes, and none when the share is 0."""
    plain, flipped = made(seconds=15.0), made("outcome:flip", seconds=15.0)
    for event in ("paid", "rated"):
        truths = {act.subject: act.truth for act in of_event(plain, event)}
        others = {act.subject: act.truth for act in of_event(flipped, event)}
        assert truths.keys() == others.keys()
        assert [subject for subject, truth in truths.items() if others[subject] == truth] == []
    back = {act.subject for act in of_event(plain, "returned") if act.truth}
    now = {act.subject for act in of_event(flipped, "returned") if act.truth}
    assert back.isdisjoint(now)
    assert back | now == {act.subject for act in plain if act.model == "back"}
    assert made("outcome:flip=0", seconds=15.0) == plain


def test_the_rate_of_outcomes_is_as_it_is_written() -> None:
    """All true, none, or half; also where no event means no."""
    for share in (0.0, 0.5, 1.0):
        found = made(f"outcome:rate={share}", seconds=15.0)
        late = [float(act.truth or 0) for act in of_event(found, "paid")]
        assert sum(late) / len(late) == pytest.approx(share, abs=0.15)
        back, asked = sum(bool(act.truth) for act in of_event(found, "returned")), sum(act.model == "back" for act in found)
        assert back / asked == pytest.approx(share, abs=0.15)


def test_late_outcomes_have_their_own_time() -> None:
    """They are published later; when they happened stays."""
    plain, late = ({act.subject: act for act in of_event(found, "paid")} for found in (made(), made("outcome:late=30s")))
    assert {name: act.offset_ms + 30_000 for name, act in plain.items()} == {name: act.offset_ms for name, act in late.items()}
    assert {name: act.row for name, act in plain.items()} == {name: act.row for name, act in late.items()}


def test_recorded_rows_are_drawn_with_their_outcomes() -> None:
    """An order of 5 was paid on time, one of 50 late: so it stays; ids and times are new ones."""
    rows = [
        {**next(act.row for act in made() if act.event == "placed"), "order": f"o{n}", "amount": amount}
        for n, amount in enumerate([5.0, 50.0])
    ]
    paid = [{"order": f"o{n}", "at": 1, "shop": "s", "days_late": late} for n, late in enumerate([0.0, 9.0])]
    found = made(like={"placed": rows, "paid": paid}, models=["late"])
    amounts = {act.subject: act.row["amount"] for act in found if act.model}
    assert set(amounts.values()) == {5.0, 50.0}
    assert all(act.truth == float(amounts[act.subject] > 10) for act in of_event(found, "paid"))
    assert not {"o0", "o1"} & amounts.keys()
    flipped = made("outcome:flip", like={"placed": rows, "paid": paid}, models=["late"])
    assert all(act.truth == float(amounts[act.subject] < 10) for act in of_event(flipped, "paid"))


def test_one_without_a_recorded_outcome_gets_none() -> None:
    """Where its absence is the answer, that is one; else no drift of outcomes makes one."""
    row = next(act.row for act in made() if act.event == "placed")
    found = made(like={"placed": [{**row, "order": "a"}], "returned": [{"order": "b", "at": 1, "back": True}]}, models=["back"])
    assert of_event(found, "returned") == []
    assert (
        of_event(
            made("outcome:flip", like={"placed": [row], "returned": [{"order": "b", "at": 1, "back": True}]}, models=["back"]), "returned"
        )
        != []
    )
    paid = {"order": "b", "at": 1, "shop": "s", "days_late": 9.0}
    for drift in ("outcome:flip", "outcome:rate=1"):
        assert of_event(made(drift, like={"placed": [{**row, "order": "a"}], "paid": [paid]}, models=["late"]), "paid") == []


def test_an_event_that_asks_and_answers() -> None:
    """Its subject is asked about again and again, and no outcome is sent beside it."""
    bought = tm.Event("bought", {"order": str, "at": int, "customer": str}, "at", id="order")
    view = tm.FeatureView("customers", bought, "customer", [tm.count()], windows=["1d"])
    again = tm.Model("again", bought, "at", "customer", [view], tm.Outcome(bought, "at > 0", "customer", absent=0))
    found = list(acts(Project("p", {"bought": bought}, {"customers": view}, {"again": again}), TrafficPlan(seconds=20.0), START_MS))
    assert Counter(bool(act.model) for act in found)[True] == len(of_event(found, "bought"))
    assert max(Counter(act.subject for act in found if act.model).values()) > 3
    assert len(set(values(found, "bought", "order"))) == len(of_event(found, "bought"))


def test_only_the_models_that_are_wanted() -> None:
    """The outcomes of others are not told as such, but as events like any other."""
    found = made(models=["back"])
    assert {act.model for act in found} == {"back", ""}
    assert not any(act.answers for act in of_event(found, "paid"))


def test_a_change_of_a_database_is_not_made_up() -> None:
    """The error says so, before anything is sent."""
    changed = tm.Event("changed", {"at": int, "id": int}, "at", envelope="debezium")
    with pytest.raises(TidemillError, match="is a change of a database"):
        next(acts(Project("p", {"changed": changed}), TrafficPlan(), START_MS))


def test_a_question_has_what_a_request_has() -> None:
    """Entities, values, contents and the moment."""
    act = next(act for act in made() if act.model == "back")
    found = instance(BACK, act.row)
    assert found == {
        "subject": act.row["order"], "time": START_MS + act.offset_ms, "entities": {"pixels": act.row["pixels"], "gift": act.row["gift"]}
    }  # fmt: skip
    data = published(project().events["measured"], {"at": START_MS, "shop": "s", "degrees": 1.0})
    assert data == {"meta": {"at": START_MS // 1000, "type": "Measured"}, "shop-id": "s", "degrees": 1.0}


def test_a_drift_beyond_all_numbers_stops_at_the_largest() -> None:
    """So that the event is taken: what is infinite, or larger than a whole number can be, would be refused."""
    amounts = {abs(value) for value in values(made("amount:scale=1e308"), "placed", "amount")}
    assert max(amounts) == sys.float_info.max
    assert {abs(value) for value in values(made("pieces:scale=1e30"), "placed", "pieces")} <= {2**53, 0}


def test_all_numbers_are_finite() -> None:
    """Whatever is scaled."""
    found = made("amount:scale=1e300 after=1s", "degrees:shift=-1e308")
    assert all(math.isfinite(value) for name in ("amount", "weight") for value in values(found, PLACED.name, name) if value is not None)


def test_one_event_answers_several_models() -> None:
    """It is published once; and one that answers a question may ask another."""
    of = project()
    again = tm.Model("again", PLACED, "at", "order", [tm.Request("pieces")], tm.Outcome(of.events["paid"], "days_late", "order"))
    chain = tm.Model(
        "chain", of.events["paid"], "at", "order", [tm.Request("days_late")], tm.Outcome(of.events["returned"], "back", "order")
    )
    of.models.clear()
    of.models.update({model.name: model for model in (LATE, again, chain)})
    found = list(acts(of, TrafficPlan(seconds=3.0, delay_ms=500), START_MS))
    asked = Counter(act.model for act in found)
    assert asked["late"] == asked["again"] == sum(act.answers == "late" for act in found)
    assert asked["chain"] > 0
    assert Counter(act.answers for act in found).keys() == {"", "late", "chain"}
