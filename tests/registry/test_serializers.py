"""What Confluent's own serializers write with a real registry is read: Avro, JSON and Protobuf, through ingestion to a view and the archive."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from confluent_kafka import Producer
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from grpc_tools import protoc
from tests.beside import beside
from tests.registry.standin import StandIn, standing_in

from tidemill import Event, FeatureView, Field, count, sum
from tidemill.archive.rows import event_table
from tidemill.declarations.project import Project
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.reader import Reader
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.registry import RegistrySettings, configured_frames, registry_frames
from tidemill.routing.opening import Frames
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import dead_letters_topic, topic_specs, view_topic
from tidemill_ingestion.consumer import EventConsumer

pytestmark = pytest.mark.integration

AT_US = 1_700_000_000_000_123
AVRO = {
    "type": "record", "name": "Paid", "namespace": "shop", "fields": [
        {"name": "order", "type": "long"}, {"name": "shop", "type": "string"}, {"name": "amount", "type": "double"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "coupon", "type": ["null", "string"], "default": None},
    ],
}  # fmt: skip
JSON_SCHEMA = {"title": "Paid", "type": "object", "properties": {"order": {"type": "integer"}, "shop": {"type": "string"}}}
PROTO = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Other { int32 nothing = 1; }
message Paid {
  enum Kind { UNKNOWN = 0; CASH = 1; }
  message Item { string sku = 1; uint64 cents = 2; }
  int64 order = 1;
  string shop = 2;
  double amount = 3;
  google.protobuf.Timestamp at = 4;
  Kind kind = 5;
  repeated Item items = 6;
  map<string, int32> tags = 7;
  optional string coupon = 8;
  google.protobuf.Int64Value points = 9;
  bytes signature = 10;
  bool online = 11;
}
"""
CONTEXT = SerializationContext("shop.paid", MessageField.VALUE)


@pytest.fixture
def client(registry: str) -> Iterator[SchemaRegistryClient]:
    """Return Confluent's client of the registry."""
    with SchemaRegistryClient({"url": registry}) as found:
        yield found


@pytest.fixture
def messages(tmp_path: Path) -> Iterator[Any]:
    """Return the module that Google's compiler makes of PROTO, as a publisher has it."""
    (tmp_path / "shop_paid.proto").write_text(PROTO)
    own = str(Path(protoc.__file__).parent / "_proto")
    assert protoc.main(["", f"-I{tmp_path}", f"-I{own}", f"--python_out={tmp_path}", "shop_paid.proto"]) == 0
    sys.path.insert(0, str(tmp_path))
    yield import_module("shop_paid_pb2")
    sys.path.remove(str(tmp_path))


def paid(number: int, **more: Any) -> dict[str, Any]:
    """An event as a publisher's object."""
    return {"order": 2**53 + 1 + number, "shop": "nörth", "amount": number / 4, "at": AT_US + number, **more}


def test_avro_of_confluent(client: SchemaRegistryClient, registry: str) -> None:
    """The record comes back with its numbers, and after the schema got another field."""
    frames = registry_frames(RegistrySettings(url=registry))
    write = AvroSerializer(client, json.dumps(AVRO), lambda found, _: found)
    assert json.loads(frames(write(paid(1, coupon="x"), CONTEXT) or b"")) == paid(1, coupon="x")
    newer = {**AVRO, "fields": [*AVRO["fields"], {"name": "till", "type": "int", "default": 0}]}
    write = AvroSerializer(client, json.dumps(newer), lambda found, _: found)
    assert json.loads(frames(write(paid(2, coupon=None, till=7), CONTEXT) or b"")) == paid(2, coupon=None, till=7)


def test_json_of_confluent(client: SchemaRegistryClient, registry: str) -> None:
    """The event lies in the frame as the serializer wrote it."""
    write = JSONSerializer(json.dumps(JSON_SCHEMA), client, lambda found, _: found)
    assert json.loads(
        registry_frames(RegistrySettings(url=registry))(write(paid(1), SerializationContext("j", MessageField.VALUE)) or b"")
    ) == paid(1)


def test_protobuf_of_confluent(client: SchemaRegistryClient, registry: str, messages: Any) -> None:
    """Fields with presence are absent when unset, others have their default; numbers are numbers, times are text."""
    write = ProtobufSerializer(messages.Paid, client, {"use.deprecated.format": False})
    frames, context = registry_frames(RegistrySettings(url=registry)), SerializationContext("p", MessageField.VALUE)
    made = messages.Paid(order=2**53 + 1, shop="nörth", amount=0.1, kind=1, tags={"a": 1}, signature=b"\xff\0")
    made.at.FromMicroseconds(AT_US)
    made.items.add(sku="x", cents=2**63 - 1)
    made.points.value = 5
    assert json.loads(frames(write(made, context) or b"")) == {
        "order": 2**53 + 1, "shop": "nörth", "amount": 0.1, "at": "2023-11-14T22:13:20.000123Z", "kind": "CASH",
        "items": [{"sku": "x", "cents": 2**63 - 1}], "tags": {"a": 1}, "points": 5, "signature": "/wA=", "online": False,
    }  # fmt: skip
    empty = json.loads(frames(write(messages.Paid(coupon=""), context) or b""))
    assert empty == {
        "order": 0,
        "shop": "",
        "amount": 0.0,
        "kind": "UNKNOWN",
        "items": [],
        "tags": {},
        "coupon": "",
        "signature": "",
        "online": False,
    }
    text = client.register_schema("as text", Schema(PROTO, "PROTOBUF"))  # as other languages register it
    again = frames(b"\0" + text.to_bytes(4, "big") + b"\2\2" + made.SerializeToString())
    assert again == frames(write(made, context) or b"")
    nested = ProtobufSerializer(messages.Paid.Item, client, {"use.deprecated.format": False})
    assert json.loads(frames(nested(messages.Paid.Item(sku="y", cents=3), context) or b"")) == {"sku": "y", "cents": 3}


def test_references_of_confluent(client: SchemaRegistryClient, registry: str) -> None:
    """A schema that the registry holds in two subjects."""
    item = {"type": "record", "name": "Item", "namespace": "shop", "fields": [{"name": "sku", "type": "string"}]}
    client.register_schema("shop-item", Schema(json.dumps(item), "AVRO"))
    order = {"type": "record", "name": "Order", "namespace": "shop", "fields": [{"name": "item", "type": "shop.Item"}]}
    whole = Schema(json.dumps(order), "AVRO", [SchemaReference("shop.Item", "shop-item", 1)])
    client.register_schema("order-value", whole)
    write = AvroSerializer(client, whole, lambda found, _: found, {"auto.register.schemas": False, "use.latest.version": True})
    found = write({"item": {"sku": "x"}}, SerializationContext("order", MessageField.VALUE))
    assert json.loads(registry_frames(RegistrySettings(url=registry))(found or b"")) == {"item": {"sku": "x"}}


def shop(prefix: str) -> Project:
    """A project with one event."""
    event = Event(
        "paid", {"at": Field(int, unit="us"), "shop": str, "amount": float, "order": int}, time="at", topic=f"{prefix}.paid", partitions=1
    )
    view = FeatureView("shops", event, "shop", [count(), sum("amount")], windows=["1h"], partitions=1)
    return Project(prefix.replace("-", "_"), {"paid": event}, {"shops": view})


async def test_from_avro_to_view_and_archive(
    kafka: str, registry: str, client: SchemaRegistryClient, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that is away at first holds ingestion up, and nothing becomes a dead letter; then all events are in the view's log once, and
    the archive takes the same."""
    project, settings = shop(topic_prefix), KafkaSettings(bootstrap_servers=kafka)
    await ensure_topics(settings, topic_specs(project))
    write = AvroSerializer(client, json.dumps(AVRO), lambda found, _: found)
    producer = Producer({"bootstrap.servers": kafka})
    for number in range(50):
        producer.produce(project.events["paid"].topic, write(paid(number), SerializationContext(topic_prefix, MessageField.VALUE)))
    producer.produce(project.events["paid"].topic, b"\0\0\x0f\x42\x40\x02\x04")  # schema 1,000,000, which nobody has
    producer.flush()
    with standing_in() as away:
        await _route(project, settings, away, registry, monkeypatch)
    log, letters = view_topic(project.name, project.views["shops"].log), dead_letters_topic(project.name)
    values = [json.loads(record.value)["values"]["amount"] for record in await _read(settings, log)]
    assert values == [number / 4 for number in range(50)]
    assert ["ours lacks schema 1000000" in json.loads(record.value)["detail"] for record in await _read(settings, letters)] == [True]
    records = await _read(settings, project.events["paid"].topic)
    table = event_table(project, project.events["paid"], frames=registry_frames(RegistrySettings(url=registry)))
    rows = table.rows(0, records)
    assert rows["order"].to_pylist() == [2**53 + 1 + number for number in range(50)]
    assert rows["at"].to_pylist() == [AT_US // 1000] * 50
    assert json.loads(rows["_extra"][3].as_py()) == {"at": AT_US + 3, "coupon": None}


class Switch:
    """Frames of the registry in trouble, and of the real one as soon as the trouble is over."""

    def __init__(self, troubled: Frames, real: Frames, away: StandIn) -> None:
        self._troubled, self._real, self._away = troubled, real, away

    def __call__(self, value: bytes) -> bytes:
        """The JSON of a frame."""
        return (self._troubled if self._away.answers else self._real)(value)


async def _route(project: Project, settings: KafkaSettings, away: StandIn, registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs ingestion with a registry in trouble, then with the real one."""
    real = registry_frames(RegistrySettings(url=registry))
    troubled = registry_frames(RegistrySettings(url=away.url))
    away.answers |= {f"/schemas/ids/{number}": (503, b"starting") for number in range(1000)}
    monkeypatch.setattr("tidemill_ingestion.consumer.configured_frames", lambda: Switch(troubled, real, away))
    group_end = (await offset_ranges(settings, project.events["paid"].topic))[TopicPartition(project.events["paid"].topic, 0)].end
    async with EventConsumer(settings, project) as routing, beside(routing.run()):
        await _until(lambda: routing.waits_for is not None)
        assert routing.waits_for is not None
        assert "answered 503" in routing.waits_for
        away.answers.clear()
        await _until(lambda: set(routing.positions.values()) == {group_end})
        assert routing.waits_for is None


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.05)


async def _read(settings: KafkaSettings, topic: str) -> list[Any]:
    async with Reader(settings, {TopicPartition(topic, 0): 0}) as reader:
        return [record async for fetched in read_to_end(reader) for records in fetched.values() for record in records]


def test_the_environment_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services read one variable; without it JSON alone is read."""
    configured_frames.cache_clear()
    monkeypatch.setenv("TIDEMILL_SCHEMA_REGISTRY", "http://127.0.0.1:9")
    assert "RegistryFrames" in repr(configured_frames())
    configured_frames.cache_clear()
