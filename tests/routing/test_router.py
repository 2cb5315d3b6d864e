"""Good events become the records that views, models and outcomes need."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.ingestion.samples import NOW_MS, NOW_TEXT, arrived, departed, project, refusal, route, scheduled

from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.kernel.fold import entry_decoder
from tidemill.kernel.keys import partition_of
from tidemill.limits import MESSAGE_BYTES
from tidemill.records import OutcomeRecord, ViewRecord
from tidemill.routing.envelopes import Attributes
from tidemill.routing.events import EventReader
from tidemill.routing.router import Router


def view_records(routed: Any) -> dict[str, tuple[bytes, ViewRecord]]:
    """Key and record by topic."""
    return {topic: (key, msgspec.json.decode(value, type=ViewRecord)) for topic, _, key, value in routed}


def test_one_record_per_view() -> None:
    """An event becomes one record per view, keyed by its entity, with the fields that view folds."""
    records = view_records(route(departed()))
    common: dict[str, Any] = {"time": NOW_MS, "known": NOW_MS, "source": (1, 5), "id": "UA1"}
    assert records == {
        "airline.view.origins.p4": (b"EWR", ViewRecord(**common, values={"dep_delay": 2.5})),
        "airline.view.carriers.p3": (b"UA", ViewRecord(**common, values={"dep_delay": 2.5})),
        "airline.view.planes.p4": (b"N1", ViewRecord(**common, values={})),
        "airline.view.gates.p4": (b"7", ViewRecord(**common, values={"diverted": False, "seats": 150})),
    }


def test_partitions_follow_the_key() -> None:
    """A record's partition is that of its key among the partitions of its view."""
    for topic, partition, key, _ in route(departed()):
        view = project().views[topic.split(".")[2]]
        assert key is not None
        assert partition == partition_of(key, view.partitions)


def test_records_are_read_by_the_fold() -> None:
    """What is written is what a view's own decoder reads; a null is left out."""
    for topic, _, key, value in route(departed(dep_delay=None)):
        view = project().views[topic.split(".")[2]]
        record = entry_decoder(view)(0, key, value).record
        assert record is not None
        assert (record.time, record.source, record.id) == (NOW_MS, (1, 5), "UA1")
        assert [getattr(record.values, name) for name in view.value_fields] in ([None], [], [False, 150])
        assert b"null" not in value


@pytest.mark.parametrize("tailnum", [None, ...])
def test_null_entity(tailnum: Any) -> None:
    """A view whose nullable entity is null or left out gets no record; the others do, and it is counted."""
    router = Router(project())
    topics = [record[0] for record in route(departed(tailnum=tailnum), router=router)]
    assert sorted(topics) == ["airline.view.carriers.p3", "airline.view.gates.p4", "airline.view.origins.p4"]
    assert (router.unkeyed, router.refused) == ({"airline.view.planes.p4": 1}, {})


@pytest.mark.parametrize("entity", ['"quoted"', "line\nbreak", "nul\x00", "Zürich, 東京 🛫", "x" * 1024, "{a}", " ", "ü" * 512])
def test_odd_keys(entity: str) -> None:
    """Any text of up to 1 KB is a key, as its UTF-8."""
    records = view_records(route(departed(origin=entity)))
    assert records["airline.view.origins.p4"][0] == entity.encode()


@pytest.mark.parametrize("gate", [0, -1, 2**63 - 1, -(2**63)])
def test_number_keys(gate: int) -> None:
    """A whole number is a key in decimal."""
    assert view_records(route(departed(gate=gate)))["airline.view.gates.p4"][0] == str(gate).encode()


def test_an_announced_subject_is_no_record() -> None:
    """A training set finds it in the archive; whether its subject is null is nothing that routing counts."""
    router = Router(project())
    assert route(scheduled(), "scheduled", router=router) == route(scheduled(flight=None), "scheduled", router=router) == []
    assert not router.unkeyed


@pytest.mark.parametrize(("delay", "late"), [(20.0, 1.0), (15.0, 0.0), (15, 0.0)])
def test_outcome_records(delay: float, late: float) -> None:
    """An outcome is 1 or 0 for a condition, else the number."""
    routed = route(arrived(arr_delay=delay), "arrived")
    records = [msgspec.json.decode(value, type=OutcomeRecord) for topic, _, _, value in routed if topic == "airline.outcomes"]
    common: dict[str, Any] = {
        "subject": "UA1",
        "time": NOW_MS,
        "known": NOW_MS,
        "source": ("airline.in.arrived", 1, 5),
        "id": str(arrived()["number"]),
    }
    assert records == [OutcomeRecord(model="late", value=late, **common), OutcomeRecord(model="burn", value=9.0, **common)]


def test_null_outcome() -> None:
    """A null value is no outcome; the event still feeds what it can."""
    routed = route(arrived(arr_delay=None), "arrived")
    assert [record[0] for record in routed] == ["airline.view.landings.p4", "airline.outcomes"]


def test_known_is_kafkas_timestamp_or_the_recorded_time() -> None:
    """An event is known since Kafka's timestamp, unless a header says since when it was recorded."""
    for text in (b"1600000000000", b"2020-09-13T12:26:40Z", b"2020-09-13T14:26:40.000+02:00"):
        routed = route(departed(departed_at=1_600_000_000_000), headers=[("ce_recordedtime", text)])
        assert {record.known for _, record in view_records(routed).values()} == {1_600_000_000_000}
    assert refusal(route(departed(), headers=[("ce_recordedtime", b"1600000000000")])).reason == "future_time"
    routed = route(departed(), headers=[("ce_recordedtime", b"1700003600000")])  # as far ahead of Kafka's timestamp as `future` allows
    assert {record.known for _, record in view_records(routed).values()} == {NOW_MS + 3_600_000}


def test_attributes_stand_in_for_fields() -> None:
    """CloudEvents time and id are used when the data have none, whatever the fields' types."""
    headers = [("ce_time", NOW_TEXT.encode()), ("ce_id", b"12")]
    records = view_records(route(departed(departed_at=..., flight=...), headers=headers))
    assert {(record.time, record.id) for _, record in records.values()} == {(NOW_MS, "12")}
    (landing, *outcomes) = route(arrived(arrived_at=..., number=...), "arrived", headers)
    assert msgspec.json.decode(landing[3], type=ViewRecord).id == "12"
    assert len(outcomes) == 2


def test_attributes_are_put_into_the_fields() -> None:
    """Whoever reads the data of an accepted event finds time and id there, in the types that the fields have."""
    router, given = Router(project()), Attributes(id="12", time=NOW_TEXT)
    number = router.admit("arrived", msgspec.json.encode(arrived(arrived_at=..., number=...)), given, NOW_MS)
    text = router.admit("departed", msgspec.json.encode(departed(departed_at=..., flight=...)), given, NOW_MS)
    assert (number.data.number, number.data.arrived_at, number.id, number.time_ms) == (12, NOW_TEXT, "12", NOW_MS)
    assert (text.data.flight, text.data.departed_at, text.id, text.time_ms) == ("12", NOW_MS, "12", NOW_MS)


@pytest.mark.parametrize(
    ("id_field", "data", "attribute", "found"),
    [
        (None, {}, "12", "12"), (None, {}, None, None), ("ref", {}, "12", "12"), ("ref", {"ref": None}, "12", "12"),
        ("ref", {"ref": None}, None, None), ("ref", {"ref": "r"}, "12", "r"),
    ],
)  # fmt: skip
def test_an_id_that_may_be_absent(id_field: str | None, data: dict[str, Any], attribute: str | None, found: str | None) -> None:
    """An event without an id field, or with null in it, has the id of the attributes, if they give one."""
    reader = EventReader(Event("e", {"at": int, "ref": str | None}, time="at", id=id_field))
    assert reader.check(msgspec.json.encode({"at": NOW_MS, **data}), Attributes(id=attribute), NOW_MS).id == found


def test_fields_win_over_attributes() -> None:
    """Time and id in the data are the event's; an event without an id field takes that of the header."""
    headers = [("ce_time", b"2001-01-01T00:00:00Z"), ("ce_id", b"other"), ("ce_type", b"departed"), ("ce_extra", None), ("x", b"\xff")]
    records = view_records(route(departed(), headers=headers))
    assert {(record.time, record.id) for _, record in records.values()} == {(NOW_MS, "UA1")}


def test_structured_event() -> None:
    """A whole CloudEvent in JSON is routed like the same event in binary mode."""
    value = {
        "specversion": "1.0", "type": "departed", "source": "/gate", "id": "12", "time": NOW_TEXT, "recordedtime": NOW_MS - 1,
        "data": departed(departed_at=..., flight=...), "traceparent": "00-1",
    }  # fmt: skip
    structured = route(value, headers=[("content-type", b"application/cloudevents+json")])
    binary = [("ce_type", b"departed"), ("ce_id", b"12"), ("ce_time", NOW_TEXT.encode()), ("ce_recordedtime", str(NOW_MS - 1).encode())]
    assert structured == route(departed(departed_at=..., flight=...), headers=binary)


@pytest.mark.parametrize("name", ["Content-Type", "content_type", "contentType", "CONTENT-TYPE"])
def test_structured_event_under_another_spelling(name: str) -> None:
    """Publishers spell the header in their own ways."""
    value = {"specversion": "1.0", "type": "departed", "source": "/gate", "id": "12", "data": departed()}
    assert route(value, headers=[(name, b"Application/CloudEvents+JSON; charset=UTF-8")]) == route(departed(), headers=[("ce_id", b"12")])


@pytest.mark.parametrize("spelt", ["ce-{}", "CE_{}", "Ce-{}"])
def test_attributes_under_another_spelling(spelt: str) -> None:
    """An event's headers as they are over HTTP, or in capitals, mean the same."""
    told = {"type": b"departed", "id": b"7", "time": NOW_TEXT.encode()}
    other, plain = ([(form.format(name), value) for name, value in told.items()] for form in (spelt, "ce_{}"))
    value = departed(departed_at=..., flight=...)
    assert route(value, headers=other) == route(value, headers=plain)


def test_times_are_cut_to_milliseconds() -> None:
    """A time with more digits, or another zone, is the same moment cut to ms."""
    for text in ("2023-11-14T22:13:19.999999Z", "2023-11-15T03:43:19.999+05:30", "2023-11-14t22:13:19.9994z"):
        record = msgspec.json.decode(route(arrived(arrived_at=text), "arrived")[0][3], type=ViewRecord)
        assert record.time == NOW_MS - 1


def test_largest_event() -> None:
    """An event of exactly the allowed size is accepted, one byte more is not."""
    event = scheduled(cabin="")
    room = MESSAGE_BYTES - len(msgspec.json.encode(event))
    for cabin in ("x" * room, "é" * (room // 2), '"' * (room // 2)):
        value = msgspec.json.encode(scheduled(cabin=cabin))
        assert MESSAGE_BYTES - 1 <= len(value) <= MESSAGE_BYTES
        assert route(value, "scheduled") == []
    assert refusal(route(msgspec.json.encode(scheduled(cabin="x" * (room + 1))), "scheduled")).reason == "oversized"


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_a_value_is_passed_over(value: bytes | None) -> None:
    """A tombstone is ordinary: it is counted, and becomes nothing; a dead letter only where the event says so."""
    router = Router(project())
    assert route(value, headers=[("ce_id", b"x")], router=router) == []
    assert (router.no_event, router.refused) == ({("airline.in.departed", "empty"): 1}, {})
    event = Event("e", {"at": int}, "at", empty="refuse")
    strict = Router(Project("p", {"e": event}, {}))
    (letter,) = strict.route("e", 0, 0, NOW_MS, b"k", value, [])
    assert letter[0] == "p.dead-letters"
    assert strict.refused == {("e", "empty"): 1}
