"""Other frames than an id of four bytes before the value: ids in headers, as Confluent's serializers write them, and Apicurio's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from grpc_tools import protoc
from tests.registry.standin import StandIn, standing_in

from tidemill import Event, FeatureView, count
from tidemill.archive.rows import event_table
from tidemill.declarations.project import Project
from tidemill.records import DeadLetterRecord, decoder
from tidemill.registry import RegistrySettings, registry_frames
from tidemill.routing.framing import HEADER
from tidemill.routing.opening import Frames, unframed
from tidemill.routing.router import Router

NOW_MS = 1_700_000_000_000
EVENT = Event("paid", {"at": int, "order": int, "shop": str}, time="at")
PROJECT = Project("p", {"paid": EVENT}, {"shops": FeatureView("shops", EVENT, "shop", [count()], windows=["1h"])})
PAID = {"at": NOW_MS, "order": 2**53 + 1, "shop": "nörth"}
AVRO = {
    "type": "record", "name": "Paid", "fields": [
        {"name": "order", "type": "long"}, {"name": "at", "type": "long"}, {"name": "shop", "type": "string"},
    ],
}  # fmt: skip
JSON_SCHEMA = {"title": "Paid", "type": "object", "properties": {"order": {"type": "integer"}, "shop": {"type": "string"}}}
PROTO = """
syntax = "proto3";
message Refunded { int64 order = 1; }
message Paid { int64 order = 1; string shop = 2; int64 at = 3; message Line { string shop = 1; int64 at = 2; int64 order = 3; } }
"""
GUID = "01234567-89ab-cdef-0123-456789abcdef"
IN_HEADER = {"schema.id.serializer": header_schema_id_serializer}


@pytest.fixture
def server() -> Iterator[StandIn]:
    """Return a registry; Apicurio's, which other tests run, knows no GUIDs."""
    with standing_in() as found:
        yield found


@pytest.fixture
def client() -> Iterator[SchemaRegistryClient]:
    """Return Confluent's client, with its own registry in memory."""
    with SchemaRegistryClient.new_client({"url": "mock://"}) as found:
        yield found


def written(write: Any, value: Any) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    """Value and headers of the record that a serializer makes."""
    headers: list[tuple[str, bytes | None]] = []
    return write(value, SerializationContext("paid", MessageField.VALUE, headers)), headers  # type: ignore[arg-type]


def served(server: StandIn, client: SchemaRegistryClient, headers: list[tuple[str, bytes | None]], kind: str) -> Frames:
    """How frames are opened with the schema that a header names."""
    ((name, head),) = headers
    assert (name, (head or b"")[:1]) == (HEADER, b"\1")
    guid = f"{(head or b'')[1:17].hex()}"
    guid = "-".join((guid[:8], guid[8:12], guid[12:16], guid[16:20], guid[20:]))
    server.knows(guid, kind, client.get_schema_by_guid(guid, "serialized" if kind == "PROTOBUF" else None).schema_str or "")
    return registry_frames(RegistrySettings(url=server.url))


class Sent:
    """A record as the archive reads it."""

    def __init__(self, value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
        self.value, self.headers, self.key, self.offset, self.timestamp = value, headers, None, 0, NOW_MS


def routed(value: bytes | None, headers: list[tuple[str, bytes | None]], frames: Frames = unframed) -> Any:
    """What the view gets, or the dead letter; what the archive has must be the same."""
    router = Router(PROJECT, frames=frames)
    found = router.route("paid", 0, 0, NOW_MS, None, value, headers)
    rows = event_table(PROJECT, EVENT, frames=frames).rows(0, [Sent(value or b"", headers)])
    if not found:
        return dict(router.no_event)
    ((topic, _, key, record),) = found
    if topic.endswith("dead-letters"):
        assert len(rows) == 0
        return decoder(DeadLetterRecord).decode(record)
    assert [{name: row[name] for name in PAID} for row in rows.to_pylist()] == [PAID]
    assert (key or b"").decode() == PAID["shop"]
    return PAID


def test_avro_with_its_schema_in_a_header(server: StandIn, client: SchemaRegistryClient) -> None:
    """The value alone says nothing: with the header it is the event, in ingestion and in the archive."""
    value, headers = written(AvroSerializer(client, json.dumps(AVRO), lambda found, _: found, IN_HEADER), PAID)
    frames = served(server, client, headers, "AVRO")
    for _ in range(3):
        assert routed(value, [("trace", b"\xff"), *headers], frames) == PAID
    assert len(server.asked) == 1
    assert "schema registry" not in routed(value, [], frames).detail
    assert f"in the header {HEADER}, then Avro or Protobuf): set TIDEMILL_SCHEMA_REGISTRY" in routed(value, headers).detail


def test_json_with_its_schema_in_a_header(client: SchemaRegistryClient) -> None:
    """The value is the event, and no registry is asked."""
    value, headers = written(JSONSerializer(json.dumps(JSON_SCHEMA), client, lambda found, _: found, IN_HEADER), PAID)
    assert routed(value, headers) == PAID


@pytest.mark.parametrize("message", ["Paid", "Line"])
def test_protobuf_with_its_schema_in_a_header(server: StandIn, client: SchemaRegistryClient, tmp_path: Path, message: str) -> None:
    """The header also says which message of the file it is."""
    module = f"framing_{message.lower()}"
    (tmp_path / f"{module}.proto").write_text(PROTO.replace('"proto3";', f'"proto3"; package {module};'))
    assert protoc.main(["", f"-I{tmp_path}", f"--python_out={tmp_path}", f"{module}.proto"]) == 0
    sys.path.insert(0, str(tmp_path))
    made = import_module(f"{module}_pb2")
    sys.path.remove(str(tmp_path))
    kind = made.Paid if message == "Paid" else made.Paid.Line
    value, headers = written(ProtobufSerializer(kind, client, {"use.deprecated.format": False, **IN_HEADER}), kind(**PAID))
    frames = served(server, client, headers, "PROTOBUF")
    assert routed(value, headers, frames) == PAID
    assert routed(b"", headers, frames).reason == "bad_key"  # a message of defaults, which has no bytes, and no shop
    assert routed(None, headers, frames) == {("paid", "empty"): 1}


@pytest.mark.parametrize(
    ("value", "headers", "reason", "told"),
    [
        (b"\x02\x04", [(HEADER, b"\1" + bytes(16))], "framed", "ours lacks schema 00000000-0000-0000-0000-000000000000"),
        (b"\x02\x04", [(HEADER, b"\0\0\0\0\x63")], "framed", "ours lacks schema 99"),
        (b"\x02", [(HEADER, b"\1" + bytes.fromhex(GUID.replace("-", "")))], "encoded", f"is not what schema {GUID} of the registry says"),
        (b"\x02\x04", [(HEADER, b"\1\2\3")], "framed", f"the header {HEADER} is no id of a schema"),
        (b"\x02\x04", [(HEADER, b"")], "framed", f"the header {HEADER} is no id of a schema"),
        (b"\x02\x04", [("apicurio.value.globalId", bytes(8))], "framed", "apicurio.registry.headers.enabled=false"),
        (b"\x02\x04", [("apicurio.value.contentId", bytes(8))], "framed", "in the header apicurio.value.contentid"),
        (b"\0\0\0\0\0\0\0\0\7\x02\x04", [], "framed", "framed by Apicurio's serializers (schema id 7 in eight bytes, then Avro or Protobuf)"),
        (b'\0\0\0\0\0\0\0\0\7{"at":', [], "framed", "in eight bytes, then JSON): let them write ids as Confluent's do"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_names_its_frame(
    server: StandIn, value: bytes, headers: list[tuple[str, bytes | None]], reason: str, told: str
) -> None:
    """With a registry; the registry is never asked for an id that is not one of its own."""
    server.knows(GUID, "AVRO", json.dumps(AVRO))
    letter = routed(value, headers, registry_frames(RegistrySettings(url=server.url)))
    assert (letter.reason, told in letter.detail) == (reason, True), letter.detail
    assert "/schemas/ids/0" not in server.asked
    assert "/schemas/ids/7" not in server.asked


@pytest.mark.parametrize("head", [b"\0\0\0\0\0\0\0\0\7", b"\0\0\0\0\x07", b""])
@pytest.mark.parametrize("header", [[], [("apicurio.value.globalId", bytes(8))], [(HEADER, b"any")]])
def test_json_needs_no_schema(head: bytes, header: list[tuple[str, bytes | None]]) -> None:
    """In each of the frames, whatever the headers are."""
    assert routed(head + json.dumps(PAID).encode(), header) == PAID
