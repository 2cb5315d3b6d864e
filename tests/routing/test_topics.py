"""Topics with events of several types: each event goes its own way, and what is no event of the project is passed over and counted."""

from __future__ import annotations

import json
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill import Event, FeatureView, Type, count, sum
from tidemill.archive.rows import event_table
from tidemill.declarations.project import Project, collect
from tidemill.declarations.written import read_event, write_event
from tidemill.errors import DeclarationError
from tidemill.records import DeadLetterRecord, decoder
from tidemill.routing.envelopes import BARE
from tidemill.routing.refusals import PassedOver, Refused
from tidemill.routing.router import Router
from tidemill.testing import World
from tidemill.testing.log import TopicRecord

T0 = 1_700_000_000_000
TOPIC = "shop.events"
FIELDS = {"at": int, "shop": str, "amount": float}


def shop(paid: Type | None, returned: Type | None, **more: Any) -> Project:
    """Two events on one topic, a view of each."""
    events = [
        Event(name, FIELDS, time="at", topic=TOPIC, type=of, **more)
        for name, of in (("paid", paid), ("returned", returned))
        if of is not None
    ]
    views = [FeatureView(event.name, event, "shop", [count(), sum("amount")], windows=["1h"]) for event in events]
    module = ModuleType("shop.project")
    vars(module).update({item.name + kind: item for kind, items in (("_e", events), ("_v", views)) for item in items}, PROJECT="shop")
    return collect(module, None)


PLACES = {
    "a field": lambda value: Type(value, field="type"),
    "a nested field": lambda value: Type(value, field=["meta", "kind of event"]),
    "a header": lambda value: Type(value, header="event-type"),
    "CloudEvents": lambda value: Type(value, header="ce-type"),
}


def record(place: str, kind: str | None, amount: float = 2.0) -> tuple[bytes, list[tuple[str, bytes]]]:
    """A record as a publisher writes it: value and headers."""
    data: dict[str, Any] = {"at": T0, "shop": "north", "amount": amount}
    headers: list[tuple[str, bytes]] = []
    if kind is not None and place == "a field":
        data["type"] = kind
    elif kind is not None and place == "a nested field":
        data["meta"] = {"kind of event": kind, "by": "till"}
    elif kind is not None:
        headers = [("Event-Type" if place == "a header" else "ce_type", kind.encode())]
    return json.dumps(data).encode(), headers


@pytest.mark.parametrize("place", PLACES)
def test_each_event_goes_its_way(place: str) -> None:
    """Views get the events of their type, wherever the type lies; others and those without a type are counted, and are no dead letters."""
    project = shop(PLACES[place]("com.shop.Paid"), PLACES[place]("com.shop.Returned"))
    router, found = Router(project), Counter[str]()
    kinds = ["com.shop.Paid", "com.shop.Returned", "com.shop.Paid", "com.shop.Opened", None, *(f"kind {n}" for n in range(50))]
    for offset, kind in enumerate(kinds):
        value, headers = record(place, kind)
        found.update(topic for topic, *_ in router.route(TOPIC, 0, offset, T0, None, value, headers))
    assert found == {"shop.view.paid.p4": 2, "shop.view.returned.p4": 1}
    assert (router.no_event, router.refused) == ({(TOPIC, "type"): 52}, {})


@pytest.mark.parametrize("place", PLACES)
def test_the_archive_keeps_each_type_in_its_table(place: str) -> None:
    """The table of an event has its events alone, whole, with what says the type."""
    project = shop(PLACES[place]("Paid"), PLACES[place]("Returned"))
    values = [record(place, kind, amount) for amount, kind in enumerate(["Paid", "Returned", "Other", "Paid"])]
    records = [TopicRecord(TOPIC, 0, offset, None, value, T0, tuple(headers)) for offset, (value, headers) in enumerate(values)]
    rows = event_table(project, project.events["paid"]).rows(0, records)
    assert (rows["_offset"].to_pylist(), rows["amount"].to_pylist()) == ([0, 3], [0.0, 3.0])
    if "field" in place:
        assert "Paid" in rows["_extra"][0].as_py()


@pytest.mark.parametrize("place", PLACES)
def test_a_published_event_is_known_again(place: str) -> None:
    """What is published by name carries its type, so that it is read as that event; data of another type are refused."""
    world = World(shop(PLACES[place]("Paid"), PLACES[place]("Returned")))
    data = json.loads(record(place, "Paid")[0])
    world.publish("paid", data)
    world.publish("paid", data, at=T0 + 1)
    assert world.features("paid", "north")["sum_amount_1h"].value == 4.0
    assert world.features("returned", "north")["count_1h"].value is None
    if "field" in place:
        with pytest.raises(Refused, match=r"is 'Paid', of 'returned' it is 'Returned'"):
            world.publish("returned", data)


def test_an_event_is_found_by_its_type_too() -> None:
    """A CloudEvent over HTTP names the type, not our name."""
    router = Router(shop(Type("com.shop.Paid", header="ce_type"), Type("com.shop.Returned", header="ce_type")))
    assert router.event_of("com.shop.Paid").name == router.event_of("paid").name == "paid"
    assert router.event_of("paid").headers == [("ce_type", b"com.shop.Paid")]
    with pytest.raises(Refused, match=r"no event 'com\.shop\.Opened'"):
        router.event_of("com.shop.Opened")


def test_one_event_among_others() -> None:
    """A topic of which the project knows one type only: the rest is passed over, whole CloudEvents too."""
    router = Router(shop(Type("Paid", header="ce_type"), None))
    whole = {"specversion": "1.0", "source": "/x", "id": "1", "data": {"at": T0, "shop": "s", "amount": 1.0}}
    header = [("content-type", b"application/cloudevents+json")]
    for kind, records in (("Paid", 1), ("Returned", 0)):
        assert len(router.route(TOPIC, 0, 0, T0, None, json.dumps(whole | {"type": kind}).encode(), header)) == records
    assert router.no_event == {(TOPIC, "type"): 1}


def test_a_record_that_is_no_json_is_a_dead_letter() -> None:
    """Where the type lies in the JSON, what is none cannot be another event; a record that is known by its header is refused as that event."""
    by_field, by_header = (Router(shop(Type("Paid", **place), None)) for place in ({"field": "type"}, {"header": "type"}))
    ((_, _, _, letter),) = by_field.route(TOPIC, 0, 0, T0, None, b'{"type": "Paid"', [])
    assert decoder(DeadLetterRecord).decode(letter).event is None
    assert by_field.route(TOPIC, 0, 0, T0, None, b"[1]", []) == []
    assert by_header.route(TOPIC, 0, 0, T0, None, b"nonsense", [("type", b"Other")]) == []
    ((_, _, _, letter),) = by_header.route(TOPIC, 0, 0, T0, None, b"nonsense", [("type", b"Paid")])
    found = decoder(DeadLetterRecord).decode(letter)
    assert (found.event, found.reason) == ("paid", "not_json")
    assert by_header.route(TOPIC, 0, 0, T0, None, b"{}", [("type", b"\xff")]) == []


@settings(max_examples=200)
@given(st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.integers()), st.dictionaries(st.text(), st.text())))
def test_any_type(kind: Any) -> None:
    """Only the very type counts: text is no number, and true is not 1."""
    router = Router(shop(Type(1, field="type"), Type("1", field="type")))
    routed = router.route(TOPIC, 0, 0, T0, None, json.dumps({"at": T0, "shop": "s", "amount": 1.0, "type": kind}).encode(), [])
    expected = {"1": ["shop.view.returned.p4"]}.get(kind, []) if isinstance(kind, str) else []
    if isinstance(kind, int) and not isinstance(kind, bool) and kind == 1:
        expected = ["shop.view.paid.p4"]
    assert [topic for topic, *_ in routed] == expected


def test_types_outlive_the_file() -> None:
    """The catalogue holds how an event is known."""
    for of in (Type("Paid", field=["meta", "type"]), Type(7, field="kind"), Type("Paid", header="ce_type"), None):
        again = read_event(write_event(Event("e", FIELDS, time="at", type=of)))
        assert str(again.type) == str(of)


MISTAKES = [
    (lambda: shop(Type("A", field="type"), Type("A", field="type")), "already the type of event 'paid'"),
    (lambda: shop(Type("A", field="type"), Type("B", header="type")), "their types lie at different places"),
    (lambda: collect_both(partitions=2), "partitions is . of one and . of the other"),
    (lambda: collect_both(envelope="debezium"), "and envelope is "),
    (lambda: collect_both(empty="refuse"), "and empty is "),
    (lambda: collect_both(type=None), "nothing says which is which"),
]


def collect_both(**changed: Any) -> Project:
    """Two events on one topic, of which the second differs."""
    module = ModuleType("shop.project")
    second = {"type": Type("B", field="type"), **changed}
    vars(module).update(
        a=Event("a", FIELDS, time="at", topic=TOPIC, type=Type("A", field="type")), b=Event("b", FIELDS, time="at", topic=TOPIC, **second)
    )
    return collect(module, None)


@pytest.mark.parametrize(("declare", "told"), MISTAKES)
def test_events_that_cannot_share_a_topic(declare: Any, told: str) -> None:
    """The refusal says what contradicts."""
    with pytest.raises(DeclarationError, match=told):
        declare()


def test_a_reader_passes_over_what_is_not_its_own() -> None:
    """One reader of one event tells other types apart from mistakes."""
    table = event_table(shop(Type("Paid", field="type"), None), Event("paid", FIELDS, time="at", type=Type("Paid", field="type")))
    with pytest.raises(PassedOver) as passed:
        table.reader.read(b'{"type": "Other"}', [], T0)
    assert passed.value.why == "type"
    with pytest.raises(Refused):
        table.reader.read(b'{"type": "Paid"}', [], T0)
    with pytest.raises(Refused, match="type is 'Other'"):
        table.reader.admit(b'{"type": "Other"}', BARE, T0)
