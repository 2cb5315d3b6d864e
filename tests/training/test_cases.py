"""Training sets from the archive and the declarations of today: what a change of them, a subject that comes back, an absent outcome, and an
event that announces itself give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.proof.world import World as StoredWorld

from tidemill import Event, FeatureView, Model, Outcome, Request, age, count, mean, rate
from tidemill import sum as sum_
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.testing import World
from tidemill.timestamps import rfc3339
from tidemill.training.dataset import build

T0 = 1_700_000_000_000
SHOP = Path(__file__).parents[2] / "examples" / "shop"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
FIELDS = {"id": str, "at": int, "who": str, "x": float}
ASKED = Event("asked", {"id": str, "at": int, "who": str, "amount": float}, time="at", id="id")
CAME = Event("came", FIELDS, time="at", id="id")
SEEN = FeatureView("seen", CAME, "who", [count(), sum_("x")], windows=["1d"])


def pipeline() -> None:
    """Never called: these tests stop at the training set."""


def project(outcome: Outcome, *inputs: Any, on: Event = ASKED) -> Project:
    """A project with one model, `m`."""
    model = Model("m", on, "at", "who", list(inputs) or [Request("amount")], outcome, pipeline)
    views = {view.name: view for view in model.views}
    return Project(
        "p", {event.name: event for event in (on, outcome.source, *(view.source for view in views.values()))}, views, {"m": model}
    )


def ask(world: World, who: str, at: int, known: int | None = None, name: str = "") -> None:
    """Announces a subject."""
    world.publish("asked", {"id": name or f"q-{who}-{at}", "at": at, "who": who, "amount": 1.0}, at=at if known is None else known)


def come(world: World, who: str, known: int, x: float = 1.0, name: str = "") -> None:
    """Publishes an outcome."""
    world.publish("came", {"id": name or f"o-{who}-{known}", "at": known, "who": who, "x": x}, at=known)


def tomorrow(world: World, changed: Project) -> World:
    """The world of another declaration, to which the same was published."""
    other = World(changed)
    published = [
        (record.timestamp, record.offset, event, record)
        for event, declared in world.project.events.items()
        for partition in world.kafka.partitions(declared.topic)
        for record in partition.records
    ]
    for known_ms, _, event, record in sorted(published, key=lambda one: one[:3]):
        other.receive(event, record.value, record.headers, at=known_ms)
    return other


def labels(world: World) -> list[float]:
    """The labels of the model's training set."""
    found: list[float] = world.training_set("m").labels.tolist()
    return found


def test_a_subject_is_asked_for_every_month() -> None:
    """360 questions about 30 customers are 360 rows, and the month in which one leaves is the one that is labelled 1."""
    world = World(project(Outcome(CAME, "x > 0", "who", within="30d")))
    leaving = {f"c{i}": i % 12 for i in range(30)}
    for month in range(12):
        start = T0 + month * 30 * DAY_MS
        for who in leaving:
            ask(world, who, start)
        for who, last in leaving.items():
            come(world, who, start + 29 * DAY_MS, float(month == last))
    examples = world.training_set("m")
    assert len(examples) == 360
    assert sum(examples.labels) == 30
    months = (examples.times_ms - T0) // (30 * DAY_MS)
    assert all(label == (leaving[who] == month) for who, month, label in zip(examples.subjects, months, examples.labels, strict=True))


def test_the_absence_of_an_event_is_an_answer() -> None:
    """1,000 impressions and 30 clicks are 1,000 rows of which 30 are labelled 1, once the wait is over; before that they are none, since those
    with a click would stand for all."""
    outcome = Outcome(CAME, "x > 0", "who", within="1h", absent=0)
    world = World(project(outcome))
    for i in range(1000):
        ask(world, f"i{i}", T0 + i)
    for i in range(30):
        come(world, f"i{i}", T0 + 2000 + i)
    with pytest.raises(TidemillError, match="the wait of 1h is over for none"):
        labels(world)
    ask(world, "later", T0 + 2 * HOUR_MS)
    assert sorted(labels(world)) == [0.0] * 970 + [1.0] * 30


@pytest.mark.parametrize("delay_ms", [0, 1, 1000, 5 * MINUTE_MS])
def test_an_event_that_asks_is_not_its_own_answer(delay_ms: int) -> None:
    """Each customer buys once, or twice; whatever the time from the purchase to its publication, only the next purchase is a return."""
    world, day_ms = World.load(SHOP), DAY_MS
    bought = [(f"c{i}", T0 + i * day_ms) for i in range(60)] + [(f"c{i}", T0 + (i + 5) * day_ms) for i in range(0, 60, 3)]
    for number, (customer, at_ms) in enumerate(sorted(bought, key=lambda each: each[1])):
        data = {"order": str(number), "at": rfc3339(at_ms), "customer": customer, "cds": 1, "dollars": 2.0}
        world.publish("bought", data, at=at_ms + delay_ms)
    examples, newest_ms = world.training_set("returns"), max(at_ms for _, at_ms in bought) + delay_ms
    decided = [(customer, at_ms) for customer, at_ms in bought if at_ms + 30 * day_ms <= newest_ms]
    expected = {(customer, at_ms): float((customer, at_ms + 5 * day_ms) in bought) for customer, at_ms in decided}
    found = {(who, at_ms): label for who, at_ms, label in zip(examples.subjects, examples.times_ms.tolist(), examples.labels, strict=True)}
    assert found == expected
    assert 0 < sum(expected.values()) < len(expected)


def test_labels_follow_the_declaration_of_today() -> None:
    """A changed condition, field or wait changes the labels of what was published before."""
    world = World(project(Outcome(CAME, "x > 0.2", "who")))
    for i in range(10):
        ask(world, f"s{i}", T0 + i)
        come(world, f"s{i}", T0 + 100 + i, i / 10)
    assert sum(labels(world)) == 7
    assert sum(labels(tomorrow(world, project(Outcome(CAME, "x > 0.4", "who"))))) == 5
    assert labels(tomorrow(world, project(Outcome(CAME, "x", "who")))) == [i / 10 for i in range(10)]
    assert len(labels(tomorrow(world, project(Outcome(CAME, "x", "who", within="100ms", absent=7.0))))) == 10
    with pytest.raises(TidemillError, match="no announced subject has an outcome"):
        labels(tomorrow(world, project(Outcome(CAME, "x", "who", within="99ms"))))


def test_a_model_that_is_added_later_trains_at_once() -> None:
    """Its questions, labels and features come from events that were published before it and its view were declared."""
    world = World(Project("p", {"asked": ASKED, "came": CAME}))
    for i in range(20):
        come(world, "a", T0 + i * MINUTE_MS, 2.0)
        ask(world, "a", T0 + i * MINUTE_MS + 1)
    examples = tomorrow(world, project(Outcome(CAME, "x", "who", within="1h"), SEEN)).training_set("m")
    assert len(examples) == 19
    assert examples.matrix.tolist() == [[i + 1, 2.0 * (i + 1)] for i in range(19)]


def test_outcomes_beyond_the_wait_and_before_the_question_are_no_labels() -> None:
    """20 seconds: an outcome of 30 minutes later is none, nor one of a second before; the log's join says the same."""
    world = World(project(Outcome(CAME, "x", "who", within="20s")))
    for who, after in (("late", 30 * MINUTE_MS), ("early", -1000), ("same", 0), ("good", 20_000)):
        come(world, who, T0 + after) if after <= 0 else None
        ask(world, who, T0)
    for who, after in (("good", 20_000), ("late", 30 * MINUTE_MS)):
        come(world, who, T0 + after)
    assert world.training_set("m").subjects == ["good"]


RIDES = Event("rides", {"id": str, "at": int, "who": str, "fare": float}, time="at", id="id")


def test_a_request_does_not_see_its_own_announcement() -> None:
    """A model on the event that its view counts: `age` is that of the ride before, as it is served, and never 0."""
    riders = FeatureView("riders", RIDES, "who", [count(), age()], windows=["1d"])
    world = World(project(Outcome(CAME, "x", "who", within="1h"), riders, on=RIDES))
    served = []
    for i in range(5):
        at = T0 + i * 15 * MINUTE_MS
        served.append([value.value for value in world.features("riders", "a", at=at).values()])
        world.publish("rides", {"id": f"r{i}", "at": at, "who": "a", "fare": 1.0})
        come(world, "a", at + MINUTE_MS)
    examples = world.training_set("m")
    assert np.array_equal(examples.matrix, np.array(served, np.float32), equal_nan=True)
    assert examples.matrix[1:, 1].tolist() == [900.0] * 4
    assert math.isnan(examples.matrix[0, 1])


def test_other_events_of_its_moment_are_seen() -> None:
    """Of several events that became known when one announces a request, the request lacks that one alone, and its second publication."""
    riders = FeatureView("riders", RIDES, "who", [count(), sum_("fare")], windows=["1d"])
    world = World(project(Outcome(CAME, "x", "who", within="1h"), riders, on=RIDES))
    for i, name in enumerate(["before", "own", "own", "after"]):
        world.publish("rides", {"id": name, "at": T0 - (name != "own"), "who": "a", "fare": 10.0**i}, at=T0)
    come(world, "a", T0 + 1)
    examples = world.training_set("m")
    assert dict(zip(examples.times_ms.tolist(), examples.matrix.tolist(), strict=True))[T0] == [2.0, 1001.0]


def test_a_view_of_some_events_is_trained_on_as_it_is_served() -> None:
    """Of rides that are all questions, the dear ones alone feed the view, the ride that asks among them or not."""
    dear = FeatureView("riders", RIDES, "who", [count(), sum_("fare")], windows=["1d"], where="fare / 2 > 5")
    world = World(project(Outcome(CAME, "x", "who", within="1h"), dear, on=RIDES))
    served = []
    for i, fare in enumerate((20.0, 1.0, 30.0, 10.0, 40.0, 1.0)):
        at = T0 + i * 15 * MINUTE_MS
        served.append([value.value for value in world.features("riders", "a", at=at).values()])
        world.publish("rides", {"id": f"r{i}", "at": at, "who": "a", "fare": fare})
        come(world, "a", at + MINUTE_MS)
    assert served[-1] == [3.0, 90.0]
    assert world.training_set("m").matrix[1:].tolist() == served[1:]


OLD = Event("rides", {"id": str, "at": int, "who": str, "fare": float}, time="at", id="id")
NEW = Event("rides", {"id": str, "at": int, "who": str, "fare": float, "miles": float}, time="at", id="id")


def stored(root: Path, carried: Sequence[float | None]) -> StoredWorld:
    """Rides that were archived when `miles` was not declared; some carried it nevertheless."""
    old = project(Outcome(CAME, "x", "who"), FeatureView("riders", OLD, "who", [count()]))
    world = StoredWorld(old, root)
    rides = [
        (T0 + i, "rides", {"id": f"r{i}", "at": T0 + i, "who": "a", "fare": 1.0} | ({} if miles is None else {"miles": miles}))
        for i, miles in enumerate(carried)
    ]
    asked: list[Any] = [(T0 + 100, "asked", {"id": "q", "at": T0 + 100, "who": "a", "amount": 1.0})]
    world.publish([*rides, *asked, (T0 + 200, "came", {"id": "o", "at": T0 + 200, "who": "a", "x": 1.0})])
    world.write()
    return world


@pytest.mark.parametrize(("carried", "expected"), [([None, 3.0, 1.0], [3, 2, 2.0, 0.5]), ([None, None], [2, 0, math.nan, math.nan])])
def test_a_field_that_is_declared_later(tmp_path: Path, carried: list[float | None], expected: list[float]) -> None:
    """It has the values that events carried before it was declared; an event that lacks it counts for none of its features, and is told."""
    features = [count(), count("miles", name="known"), mean("miles"), rate("miles > 2", name="far")]
    new = project(Outcome(CAME, "x", "who"), FeatureView("riders", NEW, "who", features))
    notes: list[str] = []
    examples = build(new, None, new.models["m"], stored(tmp_path, carried).store, T0 + 1000, notes.append)
    assert np.array_equal(examples.matrix[0], np.array(expected, np.float32), equal_nan=True)
    lacking = sum(miles is None for miles in carried)
    assert f"view 'riders': {lacking} of {len(carried)} events have no 'miles', and count for no feature of it" in notes


def test_requests_that_would_be_refused_are_left_out() -> None:
    """A number beyond float32 is refused when it is asked with, so it is no example; the others are."""
    world = World(project(Outcome(CAME, "x", "who")))
    for who, amount in (("a", 1.0), ("b", 1e39)):
        world.publish("asked", {"id": who, "at": T0, "who": who, "amount": amount}, at=T0)
        come(world, who, T0 + 1)
    assert world.training_set("m").subjects == ["a"]
