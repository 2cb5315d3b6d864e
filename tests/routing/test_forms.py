"""Events that are not written plainly: what is taken, and that every refusal uses the publisher's names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidemill import Entity, Event, FeatureView, Field, count, last
from tidemill.declarations.project import Project
from tidemill.routing.envelopes import BARE, Attributes
from tidemill.routing.events import EventReader
from tidemill.routing.refusals import Refused
from tidemill.routing.uses import Uses
from tidemill.testing import World

NOW_MS = 1_700_000_000_000
EVENT = Event(
    "ordered",
    {
        "at": Field(int, path="@timestamp", unit="s"),
        "order": Field(str, path=["payload", "order-id"]),
        "user": Field(str, path=["payload", "user", "id"]),
        "age": Field(int | None, path=["payload", "user", "age"], lenient=True),
        "country": Field(str, path="from", default="unknown"),
        "gift": Field(bool, path="class", lenient=True, default=False),
        "seen": Field(int | None, unit="ns"),
        "note": Field(str | None, path=["meta", "note"], default="-"),
    },
    time="at",
    id="order",
)
GOOD: dict[str, Any] = {
    "@timestamp": NOW_MS // 1000,
    "payload": {"order-id": "o1", "user": {"id": "u1", "age": "30", "name": "x"}},
    "class": "true",
}


def read(event: dict[str, Any], attributes: Attributes = BARE) -> Any:
    """The data of an event that came now."""
    return EventReader(EVENT, Uses(["user"])).check(json.dumps(event).encode(), attributes, NOW_MS)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good event with another value at a path; `...`: without it."""
    event: dict[str, Any] = json.loads(json.dumps(GOOD))
    *through, last_key = path.split(".")
    inner = event
    for key in through:
        inner = inner[key]
    inner[last_key] = value
    if value is ...:
        del inner[last_key]
    return event


def test_a_good_event() -> None:
    """Fields have their own names, values their types, times ms, and what is absent its default."""
    accepted = read(GOOD)
    data = accepted.data
    assert (accepted.time_ms, accepted.id) == (NOW_MS, "o1")
    assert (data.at, data.order, data.user, data.age) == (NOW_MS, "o1", "u1", 30)
    assert (data.country, data.gift, data.seen, data.note) == ("unknown", True, None, "-")
    assert read(GOOD | {"seen": NOW_MS * 10**6 + 5, "meta": {"note": None}}).data.seen == NOW_MS
    assert read(GOOD | {"meta": {"note": None}}).data.note is None
    assert read(changed("payload.user.age", 30.0)).data.age == 30
    assert read(changed("@timestamp", float(NOW_MS // 1000))).time_ms == NOW_MS


@pytest.mark.parametrize(
    ("event", "reason", "field", "told"),
    [
        (changed("@timestamp", "soon"), "wrong_type", "@timestamp", "Expected `int`, got `str`"),
        (changed("@timestamp", 10**12), "bad_time", "@timestamp", '1000000000000 s lies outside the years 1 to 9999: declare unit="ms"'),
        (changed("@timestamp", ...), "missing_field", "@timestamp", "@timestamp is missing"),
        (changed("@timestamp", NOW_MS // 1000 + 3_601), "future_time", "@timestamp", "more than 1h"),
        (changed("payload", ...), "missing_field", "payload", "payload is missing"),
        (changed("payload", []), "wrong_type", "payload", "Expected `object`, got `array`"),
        (changed("payload", None), "wrong_type", "payload", "Expected `object`, got `null`"),
        (changed("payload.user", "u1"), "wrong_type", "payload.user", "Expected `object`, got `str`"),
        (changed("payload.user.id", ...), "missing_field", "payload.user.id", "payload.user.id is missing"),
        (changed("payload.user.id", ""), "bad_key", "payload.user.id", "payload.user.id may have 1 to"),
        (changed("payload.user.id", "€" * 400), "bad_key", "payload.user.id", "1200 bytes"),
        (changed("payload.order-id", ""), "bad_id", "payload.order-id", "payload.order-id may have"),
        (changed("payload.order-id", ...), "missing_field", "payload.order-id", "no CloudEvents id in its place"),
        (changed("payload.user.age", "old"), "wrong_type", "payload.user.age", "'old' is no whole number"),
        (changed("payload.user.age", 1.5), "wrong_type", "payload.user.age", "got `float`"),
        (changed("payload.user.age", 2**63), "out_of_range", "payload.user.age", ""),
        (changed("class", "perhaps"), "wrong_type", "class", "'perhaps' is no truth"),
        (changed("from", None), "wrong_type", "from", "got `null`"),
        (GOOD | {"meta": [1]}, "wrong_type", "meta", "got `array`"),
    ],
)  # fmt: skip
def test_refusals_use_the_publishers_names(event: dict[str, Any], reason: str, field: str, told: str) -> None:
    """A path that meets a list or a scalar is named, and so is every value."""
    with pytest.raises(Refused) as refused:
        read(event)
    assert (refused.value.reason, refused.value.field) == (reason, field)
    assert field in refused.value.message
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("given", "there", "told"),
    [
        ("payload.order-id", "payload.Order-Id", "in its place; the event has payload.Order-Id, which is not declared"),
        ("payload.user.id", "payload.user.ID", "payload.user.id is missing"),
        ("payload.user.id", "payload.user.id_", "payload.user.id is missing; the event has payload.user.id_, which is not declared"),
        ("payload.user.id", "payload.user_id", "payload.user.id is missing; the event has payload.user_id, which is not declared"),
        ("payload.user.id", "more", "payload.user.id is missing"),
        ("@timestamp", "timestamp", "no CloudEvents time in its place; the event has timestamp, which is not declared"),
    ],
)
def test_a_missing_member_is_told_with_the_one_that_has_nearly_its_name(given: str, there: str, told: str) -> None:
    """Also within objects; one that leads to declared fields is declared itself."""
    event = json.loads(json.dumps(changed(given, ...)).replace('"class"', '"huge": 1, "class"'))
    *through, last = there.split(".")
    place = event
    for key in through:
        place = place[key]
    place[last] = 1
    with pytest.raises(Refused) as refused:
        EventReader(EVENT).check(json.dumps(event).replace('"huge": 1', '"huge": 1e400').encode(), BARE, NOW_MS)
    assert told in refused.value.message
    assert "has payload," not in refused.value.message


def test_attributes_take_the_place_of_time_and_id() -> None:
    """Also of those that lie within objects, or count in another unit."""
    event = changed("payload.order-id", ...)
    del event["@timestamp"]
    accepted = read(event, Attributes(id="o2", time="2023-11-14T22:13:20Z"))
    assert (accepted.id, accepted.data.order, accepted.time_ms, accepted.data.at) == ("o2", "o2", NOW_MS, NOW_MS)


def test_undeclared_members_of_an_object_may_be_refused() -> None:
    """extra="refuse" reaches the objects through which paths go."""
    event = Event("e", {"at": int, "user": Field(str, path=["who", "id"])}, "at", extra="refuse")
    with pytest.raises(Refused, match=r"who\.name is not declared; the event has at, who\.id"):
        EventReader(event).check(b'{"at": 5, "who": {"id": "x", "name": "y"}}', BARE, NOW_MS)


def test_features_of_such_events() -> None:
    """From what is published to what is served."""
    view = FeatureView("users", EVENT, Entity("user"), [count(), last("age")], windows=["1h"])
    world = World(Project("shop", {"ordered": EVENT}, {"users": view}))
    world.publish("ordered", GOOD)
    world.publish("ordered", changed("payload.order-id", "o2"))
    found = world.features("users", "u1")
    assert (found["count_1h"].value, found["last_age"].value) == (2, 30)
