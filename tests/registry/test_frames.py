"""Frames of a schema registry: what is decoded, what is refused, and what is waited for."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.registry.standin import StandIn, standing_in

from tidemill.errors import RegistryUnavailable
from tidemill.registry import RegistrySettings, registry_frames
from tidemill.registry.client import SECONDS
from tidemill.routing.opening import Frames, unframed
from tidemill.routing.refusals import Refused

PAID: dict[str, Any] = {
    "type": "record",
    "name": "Paid",
    "fields": [
        {"name": "order", "type": "long"},
        {"name": "shop", "type": ["null", "string"], "default": None},
        {"name": "amount", "type": "double"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["CARD", "CASH"]}},
        {"name": "tags", "type": {"type": "map", "values": "int"}},
        {
            "name": "items",
            "type": {"type": "array", "items": {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}]}},
        },
    ],
}
GOOD = {
    "order": 2**60 + 1, "shop": "nörth", "amount": 0.1, "at": 1_700_000_000_000_123, "price": Decimal("123456789012345.67"), "kind": "CASH",
    "tags": {"a": 1}, "items": [{"sku": "x"}],
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[StandIn]:
    """Return a stand-in that holds PAID as schema 7."""
    with standing_in() as found:
        found.holds(7, "AVRO", json.dumps(PAID))
        yield found


def framed(number: int, schema: Any, value: Any) -> bytes:
    """A value as Confluent's Avro serializer writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return b"\0" + number.to_bytes(4, "big") + out.getvalue()


def frames_of(server: StandIn) -> Frames:
    """How frames are opened with the stand-in."""
    return registry_frames(RegistrySettings(url=server.url))


def test_avro_becomes_json(server: StandIn) -> None:
    """Whole numbers and decimals keep all digits, times stay numbers of their unit, and the schema is asked for once."""
    frames = frames_of(server)
    for _ in range(3):
        assert (
            frames(framed(7, PAID, GOOD))
            == json.dumps(GOOD | {"price": 0}, ensure_ascii=False, separators=(",", ":"))
            .replace('"price":0', '"price":123456789012345.67')
            .encode()
        )
    assert server.asked == ["/schemas/ids/7"]


def test_a_schema_evolves_under_way(server: StandIn) -> None:
    """Each record is read by the schema that it names, before and after the publisher's change."""
    newer = {**PAID, "fields": [field for field in PAID["fields"] if field["name"] != "shop"] + [{"name": "till", "type": "string"}]}
    server.holds(8, "AVRO", json.dumps(newer))
    frames = frames_of(server)
    value = {name: found for name, found in GOOD.items() if name != "shop"} | {"till": "t1"}
    found = [
        json.loads(frames(framed(number, schema, given))) for number, schema, given in ((7, PAID, GOOD), (8, newer, value), (7, PAID, GOOD))
    ]
    assert [(event.get("shop"), event.get("till")) for event in found] == [("nörth", None), (None, "t1"), ("nörth", None)]


def test_schemas_may_name_others(server: StandIn) -> None:
    """References, also those of references, are asked for by subject and version."""
    money = {"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "long"}]}
    line = {"type": "record", "name": "Line", "fields": [{"name": "price", "type": "Money"}]}
    order = {"type": "record", "name": "Order", "fields": [{"name": "first", "type": "Line"}, {"name": "second", "type": "Line"}]}
    server.holds(9, "AVRO", json.dumps(order), references=[{"name": "Line", "subject": "shop/line", "version": 2}])
    below = {"schema": json.dumps(line), "references": [{"name": "Money", "subject": "money", "version": 1}]}
    server.answers["/subjects/shop%2Fline/versions/2"] = (200, json.dumps(below).encode())
    server.answers["/subjects/money/versions/1"] = (200, json.dumps({"schema": json.dumps(money)}).encode())
    whole = {"type": "record", "name": "Order", "fields": [
        {"name": "first", "type": {**line, "fields": [{"name": "price", "type": money}]}}, {"name": "second", "type": "Line"},
    ]}  # fmt: skip
    value = {"first": {"price": {"cents": 1}}, "second": {"price": {"cents": 2}}}
    assert json.loads(frames_of(server)(framed(9, whole, value))) == value


def test_json_needs_no_registry(server: StandIn) -> None:
    """The JSON serializer's frame holds the event itself."""
    for frames in (unframed, frames_of(server)):
        assert frames(b'\0\0\0\0\x05{"order": 1.50}') == b'{"order": 1.50}'
    assert server.asked == []


@pytest.mark.parametrize(
    ("value", "reason", "told"),
    [
        (b"\0\0\0\0\x63\x02\x04", "framed", "ours lacks schema 99: set TIDEMILL_SCHEMA_REGISTRY"),
        (framed(7, PAID, GOOD)[:-3], "encoded", "is not what schema 7 of the registry says"),
        (framed(7, PAID, GOOD) + b"x", "encoded", "1 bytes are left over"),
        (b"\0\0\0\0\x07", "encoded", "too short for the frame"),
        (b"\0\0\0", "encoded", "too short for the frame"),
        ('{"order": 1}'.encode("utf-16-be"), "encoded", "UTF-16"),
        (framed(7, PAID, GOOD | {"amount": float("nan")}), "not_finite", "amount is nan"),
        (b"\0\0\0\0\x0a\x02\x04", "framed", "schema 10 of the registry cannot be used: its type is THRIFT"),
        (b"\0\0\0\0\x0b\x02\x04", "framed", "schema 11 of the registry cannot be used: it is no Avro schema"),
        (b"\0\0\0\0\x0c\x02\x04", "framed", "schema 12 of the registry cannot be used: it is no .proto file"),
        (b'\0\0\0\0\x0d{"order": ', "encoded", "schema 13 of the registry says: it is no JSON object"),
    ],
)
def test_what_cannot_be_decoded_is_named(server: StandIn, value: bytes, reason: str, told: str) -> None:
    """The refusal says what the value is, and which schema it names."""
    server.holds(10, "THRIFT", "struct Paid {}")
    server.holds(11, "AVRO", '{"type": "recrod"}')
    server.holds(12, "PROTOBUF", "message {")
    server.holds(13, "JSON", "{}")
    with pytest.raises(Refused) as refused:
        frames_of(server)(value)
    assert refused.value.reason == reason
    assert told in refused.value.message


def test_a_schema_that_is_lacking_is_not_asked_for_each_time(server: StandIn) -> None:
    """A stream of such records does not ask the registry for each."""
    frames = frames_of(server)
    for _ in range(100):
        with pytest.raises(Refused):
            frames(b"\0\0\0\0\x63\x02\x04")
    assert server.asked == ["/schemas/ids/99"]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, b"out of order", "answered 500"),
        (401, b"who are you", "answered 401"),
        (200, b"<html>", "no schema"),
        (200, b"{}", "no schema"),
    ],
)
def test_a_registry_in_trouble_is_waited_for(server: StandIn, status: int, body: bytes, told: str) -> None:
    """A trouble of the registry refuses no event; when it is over, the event is read."""
    frames, good = frames_of(server), server.answers["/schemas/ids/7"]
    server.answers["/schemas/ids/7"] = (status, body)
    with pytest.raises(RegistryUnavailable, match=told):
        frames(framed(7, PAID, GOOD))
    server.answers["/schemas/ids/7"] = good
    assert json.loads(frames(framed(7, PAID, GOOD)))["order"] == 2**60 + 1


def test_a_registry_that_is_away_is_waited_for() -> None:
    """The error names the address without its password."""
    with pytest.raises(RegistryUnavailable, match=r"http://127\.0\.0\.1:9 does not answer") as raised:
        registry_frames(RegistrySettings(url="http://me:secret@127.0.0.1:9"))(b"\0\0\0\0\x07\x02\x04")
    assert "secret" not in str(raised.value)
    assert SECONDS < 6  # below a member's session in ingestion's group, since its event loop waits


def test_a_password_is_sent(server: StandIn) -> None:
    """Hosted registries want a name and a password, which the address holds."""
    registry_frames(RegistrySettings(url=server.url.replace("//", "//me:secret@")))(framed(7, PAID, GOOD))
    assert server.sent == ["Basic bWU6c2VjcmV0"]


def test_any_bytes(server: StandIn) -> None:
    """Whatever follows the id becomes JSON or is refused."""
    frames = frames_of(server)

    @settings(max_examples=500, deadline=None)
    @given(body=st.binary(max_size=60))
    def judged(body: bytes) -> None:
        with contextlib.suppress(Refused):
            json.loads(frames(b"\0\0\0\0\x07" + body))

    judged()
