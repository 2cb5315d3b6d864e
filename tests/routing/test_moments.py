"""Times in a unit that cannot be meant, wherever they come in, and events of before 1971."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidemill import Entity, Event, FeatureView, Field, Model, Outcome, count, last
from tidemill.declarations.project import Project
from tidemill.routing.envelopes import BARE, Attributes
from tidemill.routing.events import EventReader
from tidemill.routing.refusals import Refused
from tidemill.routing.router import Router
from tidemill.testing import World

NOW_MS = 1_700_000_000_000
FIELDS: dict[str, Any] = {"at": int, "who": str, "asked": int, "n": int}


def declared(**options: Any) -> Project:
    """A project with one event, a view and a model that asks at a moment of the event."""
    event = Event("paid", FIELDS, "at", **options)
    view = FeatureView("people", event, Entity("who"), [count(), last("n")], windows=["1h", "30d"])
    model = Model("m", event, "asked", "who", [view], Outcome(event, "n", "who"), list)
    return Project("shop", {"paid": event}, {"people": view}, {"m": model})


@pytest.mark.parametrize(
    ("changes", "attributes", "published_ms", "field", "told"),
    [
        ({"at": NOW_MS // 1000}, BARE, NOW_MS, "at", 'at: 1700000000 ms is 1970-01-20: are these seconds? declare unit="s"'),
        ({"at": NOW_MS * 1000}, BARE, NOW_MS, "at", 'are these microseconds? declare unit="us"'),
        ({"at": NOW_MS * 10**6}, BARE, NOW_MS, "at", 'are these nanoseconds? declare unit="ns"'),
        ({"asked": NOW_MS // 1000}, BARE, NOW_MS, "asked", "asked: 1700000000 ms is 1970-01-20: are these seconds?"),
        ({}, Attributes(recordedtime=NOW_MS // 1000), NOW_MS, "recordedtime", "are these seconds?"),
        ({}, Attributes(recordedtime=str(NOW_MS // 1000)), NOW_MS, "recordedtime", "are these seconds?"),
        ({}, BARE, NOW_MS // 1000, "timestamp", "are these seconds?"),
        ({"at": ...}, Attributes(time="1970-01-20T16:13:20Z"), NOW_MS, "time", "are these seconds?"),
        ({"at": 5}, BARE, NOW_MS, "at", "at: 5 ms is 1970-01-01, before 1971-01-01"),
    ],
)  # fmt: skip
def test_a_unit_that_cannot_be_meant(changes: dict[str, Any], attributes: Attributes, published_ms: int, field: str, told: str) -> None:
    """Time of the event, of its attributes, of its record, and the moment of a request: the same words."""
    event = {name: value for name, value in ({"at": NOW_MS, "who": "a", "asked": NOW_MS, "n": 1} | changes).items() if value is not ...}
    with pytest.raises(Refused) as refused:
        Router(declared()).admit("paid", json.dumps(event).encode(), attributes, published_ms)
    assert (refused.value.reason, refused.value.field) == ("bad_time", field)
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("unit", "written", "told"),
    [
        ("us", NOW_MS + 41, '1700000000 ms is 1970-01-20, read as microseconds: are these milliseconds? declare unit="ms"'),
        ("us", NOW_MS // 1000, 'are these seconds? declare unit="s"'),
        ("ns", NOW_MS * 1000 + 5, 'read as nanoseconds: are these microseconds? declare unit="us"'),
        ("s", 5, "5000 ms is 1970-01-01, read as seconds, before 1971-01-01"),
        ("s", 19_675, '19675000 ms is 1970-01-01, read as seconds: are these days? declare unit="d"'),
        ("ms", 19_675, '19675 ms is 1970-01-01: are these days? declare unit="d"'),
        ("d", NOW_MS // 1000, 'lies outside the years 1 to 9999: declare unit="s"'),
        ("d", 20, "1728000000 ms is 1970-01-21, read as days, before 1971-01-01"),
    ],
)
@pytest.mark.parametrize("field", ["at", "asked"])
def test_a_declared_unit_that_cannot_be_meant(unit: Any, written: int, told: str, field: str) -> None:
    """Another one is guessed from the number that was written, not from the milliseconds that it became."""
    fields = {"at": int, "asked": int, "who": str, "n": int, field: Field(int, unit=unit)}
    event = Event("paid", fields, "at")
    view = FeatureView("people", event, "who", [count()], windows=["1h"])
    project = Project("shop", {"paid": event}, {}, {"m": Model("m", event, "asked", "who", [view], Outcome(event, "n", "who"), list)})
    value = json.dumps({"at": NOW_MS, "asked": NOW_MS, "who": "a", "n": 1, field: written}).encode()
    with pytest.raises(Refused) as refused:
        Router(project).admit("paid", value, BARE, NOW_MS)
    assert (refused.value.reason, refused.value.field) == ("bad_time", field)
    assert told in refused.value.message


def test_days_are_a_unit() -> None:
    """A day, as Avro and Debezium count them, is its first moment in UTC."""
    event = Event("paid", {"at": Field(int, unit="d"), "due": Field(int | None, unit="d", lenient=True)}, "at", earliest="1900-01-01")
    for day, expected in ((19_675, 1_699_920_000_000), (0, 0), (-1, -86_400_000)):
        found = EventReader(event).check(b'{"at": %d, "due": "%d"}' % (day, day), BARE, NOW_MS)
        assert (found.time_ms, found.data.at, found.data.due) == (expected,) * 3


def test_an_event_of_before_1971_is_one_if_that_is_declared() -> None:
    """Also of before 1970, where tiles have negative numbers; what lies before the declared day stays refused."""
    world = World(declared(earliest="1950-06-01"))
    base = -500_000_000_000
    for n in range(5):
        world.publish("paid", {"at": base + n * 1_200_000, "who": "a", "asked": base, "n": n}, at=base + n * 1_200_000)
    found = world.features("people", "a", at=base + 4 * 1_200_000)
    assert (found["count_1h"].value, found["count_30d"].value, found["last_n"].value) == (4, 5, 4)
    with pytest.raises(Refused, match="before 1950-06-01"):
        world.publish("paid", {"at": -700_000_000_000, "who": "a", "asked": base, "n": 1})
