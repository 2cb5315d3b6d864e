"""Every kind of bad input becomes one dead letter with its fixed reason and the field at fault."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.ingestion.samples import NOW_MS, arrived, departed, project, refusal, route, scheduled

from tidemill.declarations import Entity, Event, FeatureView, Model, Outcome
from tidemill.declarations.aggregates import count
from tidemill.declarations.project import Project
from tidemill.errors import DeclarationError
from tidemill.limits import CUT_BYTES, MESSAGE_BYTES
from tidemill.routing.envelopes import BARE, Attributes
from tidemill.routing.events import EventReader
from tidemill.routing.refusals import Reason, Refused
from tidemill.routing.router import Router
from tidemill.routing.uses import Uses

HUGE = b"9" * 10_000


def raw(field: str, value: bytes) -> bytes:
    """A good departed event with one field's value written as given."""
    whole = json.dumps(departed(**{field: "@"})).encode()
    return whole.replace(b'"@"', value)


CASES: list[tuple[str, Any, str, str]] = [
    ("undecodable bytes", b"\xfd\xfc\x00", "not_json", "malformed"),
    ("cut off", b'{"flight": "UA1"', "not_json", "truncated"),
    ("trailing text", json.dumps(departed()).encode() + b"x", "not_json", "trailing"),
    ("bytes that are no UTF-8 inside a text", raw("origin", b'"\xff"'), "not_json", "utf-8"),
    ("half a surrogate pair", raw("origin", b'"\\ud800"'), "not_json", ""),
    ("a control character in a text", raw("origin", b'"\x01"'), "not_json", ""),
    ("two byte order marks", 2 * b"\xef\xbb\xbf" + json.dumps(departed()).encode(), "not_json", ""),
    ("an array", [departed()], "not_object", "array"),
    ("a text", "departed", "not_object", "str"),
    ("null", b"null", "not_object", "null"),
    ("a number", b"12", "not_object", "int"),
    ("a field left out", departed(origin=...), "missing_field", "origin"),
    ("an empty object", {}, "missing_field", "carrier"),
    ("no time at all", departed(departed_at=...), "missing_field", "departed_at"),
    ("no id at all", departed(flight=...), "missing_field", "flight"),
    ("a misspelled field", departed(origin=..., orgin="EWR"), "missing_field", "origin is missing; the event has orgin"),
    ("a misspelled time", departed(departed_at=..., departedAt=NOW_MS), "missing_field", "the event has departedAt"),
    ("a deeply nested undeclared field", raw("seats", b'1, "pilot": ' + b"[" * 50_000 + b"]" * 50_000), "not_json", "recursion"),
    ("an undeclared field with bytes that are no UTF-8", raw("seats", b'1, "pilot": "\xff"'), "not_json", "utf-8"),
    ("an undeclared field whose name is no UTF-8", raw("seats", b'1, "\xff": 1'), "not_json", "utf-8"),
    ("an undeclared field with half a surrogate pair", raw("seats", b'1, "pilot": "\\ud800"'), "not_json", ""),
    ("an undeclared field that is NaN", raw("seats", b'1, "pilot": NaN'), "not_finite", "pilot"),
    ("an undeclared field that is cut off", raw("seats", b'1, "pilot": tru'), "not_json", "malformed"),
    ("a text for a number", departed(seats="150"), "wrong_type", "seats"),
    ("a fraction for a whole number", departed(seats=1.5), "wrong_type", "seats"),
    ("a double that may have been another whole number", departed(seats=2.0**53), "wrong_type", "seats"),
    ("a truth value for a number", departed(seats=True), "wrong_type", "seats"),
    ("a number for a truth value", departed(diverted=1), "wrong_type", "diverted"),
    ("an object for a text", departed(origin={}), "wrong_type", "origin"),
    ("a deeply nested array for a number", raw("seats", b"[" * 50_000), "wrong_type", "seats"),
    ("null where it is not allowed", departed(origin=None), "wrong_type", "origin"),
    ("a time that is null", departed(departed_at=None), "wrong_type", "departed_at"),
    ("NaN", raw("dep_delay", b"NaN"), "not_finite", "dep_delay"),
    ("infinity", raw("dep_delay", b"Infinity"), "not_finite", "dep_delay"),
    ("minus infinity", raw("dep_delay", b"-Infinity"), "not_finite", "dep_delay"),
    ("NaN under half a surrogate pair", b'{"\\ud800": NaN}', "not_finite", "ud800 is NaN"),
    ("NaN under bytes that are half a surrogate pair", b'{"\xed\xa0\x80": NaN}', "not_finite", "ud800 is NaN"),
    ("beyond a double", raw("dep_delay", b"1e400"), "out_of_range", "dep_delay"),
    ("400 digits for a double", raw("dep_delay", b"9" * 400), "out_of_range", "dep_delay"),
    ("beyond 64 bits", raw("seats", b"9223372036854775808"), "out_of_range", "seats"),
    ("below 64 bits", raw("seats", b"-9223372036854775809"), "out_of_range", "seats"),
    ("10,000 digits", raw("seats", HUGE), "out_of_range", "seats"),
    ("10,000 digits for a double", raw("dep_delay", HUGE), "out_of_range", "dep_delay"),
    ("an empty entity", departed(origin=""), "bad_key", "origin"),
    ("an empty entity that may be null", departed(tailnum=""), "bad_key", "tailnum"),
    ("an entity of 4 KB", departed(origin="x" * 4096), "bad_key", "origin"),
    ("an entity of few characters but many bytes", departed(origin="€" * 400), "bad_key", "origin"),
    ("an empty id", departed(flight=""), "bad_id", "flight"),
    ("an id of 4 KB", departed(flight="x" * 4096), "bad_id", "flight"),
    ("an id of few characters but many bytes", departed(flight="€" * 400), "bad_id", "flight"),
    ("a time before 1971", departed(departed_at=-1), "bad_time", "departed_at: -1 ms is 1969-12-31, before 1971-01-01"),
    ("a time after the year 9999", departed(departed_at=10**17), "bad_time", "departed_at"),
    ("a time too far ahead", departed(departed_at=NOW_MS + 3_600_001), "future_time", "departed_at"),
    ("an oversized value", departed(origin="x" * MESSAGE_BYTES), "oversized", str(MESSAGE_BYTES)),
    ("a value of 2 MB that is no JSON", b"\x00" * 2_000_000, "oversized", "2000000"),
]


@pytest.mark.parametrize(("value", "reason", "named"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_event(value: Any, reason: str, named: str) -> None:
    """A bad event becomes one dead letter that says why and where."""
    letter = refusal(route(value))
    assert letter.reason == reason
    assert named in letter.detail


def test_undeclared_fields_are_passed_over() -> None:
    """An event with fields that nobody declared becomes the same records as without them, whatever their values."""
    more = {"pilot": "ä", "crew": [{"name": None}, 1.5], "seat": 10**30, "": True}
    whole = json.dumps(departed(**more)).encode().replace(b"1.5", b"1e400")
    assert route(whole) == route(departed())


def test_whole_numbers_written_as_doubles() -> None:
    """300.0 is 300 where an int is declared, below 2^53."""
    assert route(departed(seats=150.0, gate=7.0, departed_at=float(NOW_MS), pilot=2.0)) == route(departed())
    assert refusal(route(departed(seats=150.0, diverted=1))).reason == "wrong_type"


def test_an_event_may_refuse_undeclared_fields() -> None:
    """With extra="refuse" an undeclared field is a mistake, and the message names the declared ones."""
    strict = EventReader(Event("e", {"at": int, "name": str}, time="at", extra="refuse", earliest="1970-01-01"))
    assert strict.check(b'{"at": 5, "name": "x"}', BARE, NOW_MS).time_ms == 5
    with pytest.raises(Refused, match="nam is not declared; the event has at, name") as refused:
        strict.check(b'{"at": 5, "nam": "x", "name": "y"}', BARE, NOW_MS)
    assert (refused.value.reason, refused.value.field) == ("unknown_field", "nam")


TEXT_TIMES = [
    ("not a time", "yesterday", "bad_time"),
    ("digits are no RFC 3339", "1700000000000", "bad_time"),
    ("a date alone", "2023-11-14", "bad_time"),
    ("without a zone", "2023-11-14T22:13:20", "bad_time"),
    ("a month that is none", "2023-13-14T22:13:20Z", "bad_time"),
    ("before 1970", "1969-12-31T23:59:59Z", "bad_time"),
    ("the first year", "0001-01-01T00:00:00+14:00", "bad_time"),
    ("a second 60", "2016-12-31T23:59:60Z", "bad_time"),
    ("the year 10000, in UTC", "9999-12-31T23:59:59-05:00", "bad_time"),
    ("empty", "", "bad_time"),
    ("too far ahead", "2023-11-14T23:13:21Z", "future_time"),
]


@pytest.mark.parametrize(("text", "reason"), [case[1:] for case in TEXT_TIMES], ids=[case[0] for case in TEXT_TIMES])
def test_bad_time_as_text(text: str, reason: str) -> None:
    """A text is an event's time only as RFC 3339 with a zone, between 1970 and what `future` allows."""
    letter = refusal(route(scheduled(published_at=text), "scheduled"))
    assert (letter.reason, letter.detail.startswith("published_at")) == (reason, True)


def test_bad_request_time() -> None:
    """The moment of a request must be a time as well, but may lie ahead."""
    assert refusal(route(scheduled(departs_at="soon"), "scheduled")).reason == "bad_time"
    for text in ("2024-11-14T23:13:21Z", "1971-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"):
        assert route(scheduled(departs_at=text), "scheduled") == []


def test_future_is_the_events_own() -> None:
    """`future` of the event bounds how far its time may lie ahead of the moment it became known, to the millisecond."""
    assert len(route(departed(departed_at=NOW_MS + 3_600_000))) == 4
    assert refusal(route(arrived(arrived_at="2023-11-14T22:23:20.001Z"), "arrived")).reason == "future_time"
    assert len(route(arrived(arrived_at="2023-11-14T22:23:20.000999Z"), "arrived")) == 3


@pytest.mark.parametrize(
    ("header", "value", "reason", "named"),
    [
        ("ce_type", b"arrived", "wrong_event", "arrived"),
        ("ce_type", b"\xff", "bad_envelope", "UTF-8"),
        ("ce_id", b"", "bad_id", "id"),
        ("ce_id", b"x" * 1025, "bad_id", "1025"),
        ("ce_recordedtime", b"today", "bad_time", "recordedtime"),
        ("ce_recordedtime", b"9" * 5000, "bad_time", "recordedtime"),
        ("ce_recordedtime", b"2023-11-14T22:13:20", "bad_time", "zone"),
        ("ce_recordedtime", b"1700003600001", "future_time", "recordedtime"),
    ],
)
def test_bad_attribute(header: str, value: bytes, reason: str, named: str) -> None:
    """CloudEvents headers are checked like fields."""
    letter = refusal(route(departed(), headers=[(header, value)]))
    assert (letter.reason, named in letter.detail) == (reason, True)


@pytest.mark.parametrize("value", [b"", b"noon", b"2023-11-14T22:13:20", b"1700000000000"])
def test_bad_time_attribute(value: bytes) -> None:
    """A CloudEvents time that stands in for the missing field must be RFC 3339 with a zone."""
    assert refusal(route(departed(departed_at=...), headers=[("ce_time", value)])).reason == "bad_time"


@pytest.mark.parametrize("value", [b"x", b"1.5", b"9" * 30, "٣x".encode()])
def test_id_attribute_for_a_number(value: bytes) -> None:
    """A CloudEvents id that stands in for a missing whole number must be one."""
    assert refusal(route(arrived(number=...), "arrived", [("ce_id", value)])).reason == "bad_id"


@pytest.mark.parametrize(
    ("event", "attributes", "reason"),
    [
        (departed(flight=...), Attributes(id="x"), None),
        (departed(flight=...), Attributes(id="x" * 1024), None),
        (departed(flight=...), Attributes(id="x" * 1025), "bad_id"),
        (arrived(number=...), Attributes(id="9" * 18), None),
        (arrived(number=...), Attributes(id="9" * 19), "bad_id"),
        (departed(), Attributes(recordedtime=f"{NOW_MS:019}"), None),
        (departed(), Attributes(recordedtime=f"{NOW_MS:020}"), "bad_time"),
    ],
)
def test_the_lengths_of_attributes(event: dict[str, Any], attributes: Attributes, reason: str | None) -> None:
    """An id has 1 to 1024 bytes, one that stands for a whole number at most 18 digits; a time in digits has at most 19 of them."""
    router, name = Router(project()), "arrived" if "fuel" in event else "departed"
    if reason is None:
        assert router.admit(name, json.dumps(event).encode(), attributes, NOW_MS).id == (attributes.id or "UA1")
    else:
        with pytest.raises(Refused) as refused:
            router.admit(name, json.dumps(event).encode(), attributes, NOW_MS)
        assert refused.value.reason == reason


def test_record_without_timestamp() -> None:
    """A record without a timestamp is refused, since nobody can say when it became known, unless it says so itself."""
    letter = refusal(route(departed(), timestamp_ms=-1))
    assert (letter.reason, letter.known) == ("bad_time", 0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"nonsense", "not_json"),
        (b"[]", "not_object"),
        (b'{"data": {}}', "missing_field"),
        (b'{"type": "departed"}', "missing_field"),
        (b'{"type": 3, "data": {}}', "bad_envelope"),
        (b'{"type": "departed", "id": 3, "data": {}}', "bad_envelope"),
        (b'{"type": "arrived", "data": {}}', "wrong_event"),
        (b'{"type": "departed", "data": {}}', "missing_field"),
        (b'{"type": "departed", "data": NaN}', "not_finite"),
        (b'{"type": "departed", "data": {"seats": NaN}}', "not_finite"),
        (b'{"type": "departed", "data": 3}', "not_object"),
        (b" " * (MESSAGE_BYTES + 1), "oversized"),
    ],
)
def test_bad_structured_event(value: bytes, reason: str) -> None:
    """A whole CloudEvent in JSON is checked inside and outside."""
    headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    assert refusal(route(value, headers=headers)).reason == reason


def test_dead_letter_says_where_and_what() -> None:
    """A dead letter carries position, time, key and the value itself."""
    routed = route(b"nonsense", offset=77)
    letter = refusal(routed)
    assert routed[0][1:3] == (0, b"source key")
    assert letter.source == ("airline.in.departed", 1, 77)
    assert (letter.key, letter.known, letter.size, base64.b64decode(letter.value)) == ("source key", NOW_MS, 8, b"nonsense")


def test_a_record_without_a_key_has_a_letter_without_one() -> None:
    """What has no key lies in the first partition of the dead letters."""
    routed = Router(project()).route("airline.in.departed", 0, 0, NOW_MS, None, b"nonsense", ())
    assert routed[0][1:3] == (0, None)
    assert refusal(routed).key is None


@pytest.mark.parametrize(("who", "accepted"), [("", False), ("x" * 1024, True), ("x" * 1025, False), ("é" * 513, False)])
def test_the_subject_of_an_outcome_is_a_key(who: str, accepted: bool) -> None:
    """An event that feeds no view, only an outcome, is refused if its subject cannot be a key."""
    asked = Event("asked", {"at": int, "who": str}, time="at")
    told = Event("told", {"at": int, "who": str, "x": float}, time="at")
    view = FeatureView("v", asked, "who", [count()], windows=["1h"])
    model = Model("m", asked, "at", "who", [view], Outcome(told, "x", subject="who"), dict)
    router = Router(Project("airline", {"asked": asked, "told": told}, {"v": view}, {"m": model}))
    routed = router.route("told", 0, 0, NOW_MS, None, json.dumps({"at": NOW_MS, "who": who, "x": 1.0}).encode(), ())
    if accepted:
        assert [record[0] for record in routed] == ["airline.outcomes"]
    else:
        assert (refusal(routed).reason, router.refused) == ("bad_key", {("told", "bad_key"): 1})


def test_dead_letter_is_cut() -> None:
    """However large the value, the key or the name of a field, a dead letter stays small."""
    name = "origin" + "x" * 900_000
    value = json.dumps(departed(origin=..., **{name: 1})).encode()
    routed = Router(project()).route("airline.in.departed", 0, 0, NOW_MS, b"\xff" * 900_000, value, ())
    letter = refusal(routed)
    assert (letter.reason, letter.size) == ("missing_field", len(value))
    assert base64.b64decode(letter.value) == value[:CUT_BYTES]
    assert len(routed[0][2] or b"") == 1024
    assert len(routed[0][3]) < 100_000


def test_refused_are_counted() -> None:
    """The router counts dead letters by topic and reason."""
    router = Router(project())
    for value in (b"[]", b"x", b"y"):
        route(value, router=router)
    assert router.refused == {("airline.in.departed", "not_object"): 1, ("airline.in.departed", "not_json"): 2}


@pytest.mark.parametrize("event", [arrived(fuel=1e200), arrived(fuel=-1.7e308)])
def test_outcome_beyond_a_double(event: dict[str, Any]) -> None:
    """An outcome that overflows is refused whole: no view gets the event either."""
    letter = refusal(route(event, "arrived"))
    assert (letter.reason, "fuel" in letter.detail) == ("out_of_range", True)


@pytest.mark.parametrize(
    ("event", "value", "field"),
    [
        ("departed", departed(origin=...), "origin"),
        ("departed", departed(seats="150"), "seats"),
        ("departed", departed(origin=""), "origin"),
        ("departed", departed(departed_at=-1), "departed_at"),
        ("arrived", arrived(fuel=1e200), "fuel"),
        ("departed", [], None),
        ("landed", {}, "type"),
    ],
)
def test_a_refusal_names_the_field(event: str, value: object, field: str | None) -> None:
    """Over HTTP an event is checked before it is written, and the answer names the field at fault."""
    with pytest.raises(Refused) as refused:
        Router(project()).admit(event, json.dumps(value).encode(), BARE, NOW_MS)
    assert refused.value.field == field


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_refusal_is_cut(more: int) -> None:
    """At most 500 characters of text and 200 of a field's name; half a surrogate pair is shown as its escape."""
    refused = Refused(Reason.WRONG_TYPE, "d" * (500 + more), "f" * (200 + more))
    assert (refused.message, refused.field) == ("d" * min(500, 500 + more), "f" * min(200, 200 + more))
    assert Refused(Reason.WRONG_TYPE, "\ud800", "\udfff").field == "\\udfff"


def test_an_outcome_beyond_a_double_names_its_first_field() -> None:
    """Of an expression over several fields the refusal names the first one."""
    told = Event("told", {"at": int, "who": str, "x": float, "y": float}, time="at")
    view = FeatureView("v", told, "who", [count()], windows=["1h"])
    model = Model("m", told, "at", "who", [view], Outcome(told, "y * x", subject="who"), dict)
    router = Router(Project("airline", {"told": told}, {"v": view}, {"m": model}))
    with pytest.raises(Refused, match=r"the outcome 'y \* x' is beyond a double") as refused:
        router.admit("told", json.dumps({"at": NOW_MS, "who": "a", "x": 1e200, "y": 1e200}).encode(), BARE, NOW_MS)
    assert refused.value.field == "y"


def test_reasons_are_fixed() -> None:
    """The codes are part of what others rely on."""
    assert {reason.value for reason in Reason} == {
        "empty", "oversized", "not_json", "not_object", "bad_envelope", "wrong_event", "unknown_event", "missing_field", "unknown_field",
        "wrong_type", "not_finite", "out_of_range", "bad_key", "bad_id", "bad_time", "future_time",
        "framed", "encoded",
    }  # fmt: skip


def test_declarations_that_cannot_be_routed() -> None:
    """A key or an id of a type that cannot be one is refused when the router is made."""
    event = Event("e", {"at": int, "ratio": float, "name": str}, time="at")
    with pytest.raises(DeclarationError, match="ratio"):
        EventReader(event, Uses(["ratio"]))
    with pytest.raises(DeclarationError, match="ratio"):
        EventReader(Event("e", {"at": int, "ratio": float}, time="at", id="ratio"))
    view = FeatureView("v", event, entity=Entity("ratio", field="name"), features=[count()])
    model = Model("m", event, "at", "name", [view], Outcome(event, "ratio", subject="name"), dict)
    with pytest.raises(DeclarationError, match="ratio"):
        Router(Project("p", {"e": event}, {"v": view}, {"m": model}))
