"""What each way of writing an event costs ingestion: events per second of CPU of routing alone, one event feeding three views.

python -m benchmarks.forms
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import fastavro
from benchmarks.figures import Figure
from benchmarks.ingestion import EVENT, PROJECT, START_MS, departure
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tidemill import Field, Type
from tidemill.declarations import Event
from tidemill.declarations.project import Project, load_project
from tidemill.registry.client import Schema
from tidemill.registry.frames import RegistryFrames
from tidemill.routing.envelopes import Headers
from tidemill.routing.opening import Frames, unframed
from tidemill.routing.router import Router

EVENTS = 20_000
_ENVELOPE = {"specversion": "1.0", "id": "1", "source": "bench", "type": EVENT}
ROUNDS = 5
_AVRO = {str: "string", int: "long", float: "double"}
_PROTO = {str: 9, int: 3, float: 1}


class Form(NamedTuple):
    """A way of writing an event: what is declared, what is published, and how frames are opened."""

    name: str
    declare: Callable[[Event], Event]
    write: Callable[[dict[str, Any]], bytes]
    headers: Headers = ()
    frames: Frames = unframed


class _Registry:
    """Answers with one schema, without HTTP: after the first event of a schema the registry is not asked again."""

    def __init__(self, kind: str, text: str) -> None:
        self._schema = Schema(kind, text)

    def schema(self, number: int) -> Schema:
        """The schema."""
        return self._schema


def forms(event: Event) -> list[Form]:
    """All of them."""
    plain = lambda found: found  # noqa: E731 - as its name in each line below
    avro = {"type": "record", "name": "E", "fields": [{"name": name, "type": _AVRO[kind]} for name, kind in event.types.items()]}
    parsed, message, text = fastavro.parse_schema(avro), *_protobuf(event)

    def in_avro(data: dict[str, Any]) -> bytes:
        out = io.BytesIO(b"\0\0\0\0\7")
        out.seek(5)
        fastavro.schemaless_writer(out, parsed, data)
        return out.getvalue()

    return [
        Form("plain", plain, _json),
        Form("other names", lambda e: _formed(e, lambda name, kind: Field(kind, path=f"@{name}")), lambda d: _json({f"@{k}": v for k, v in d.items()})),
        Form("nested", lambda e: _formed(e, lambda name, kind: Field(kind, path=["a", name])), lambda d: _json({"a": d})),
        Form("numbers as text", lambda e: _formed(e, lambda _, kind: Field(kind, lenient=kind is not str)), lambda d: _json({k: str(v) for k, v in d.items()})),
        Form("type in a header", lambda e: _changed(e, type=Type("x", header="t")), _json, [("t", b"x")]),
        Form("type in a field", lambda e: _changed(e, type=Type("x", field="t")), lambda d: _json(d | {"t": "x"})),
        Form("another type", lambda e: _changed(e, type=Type("y", field="t")), lambda d: _json(d | {"t": "x"})),
        Form("Debezium", lambda e: _changed(e, envelope="debezium"), lambda d: _json({"before": None, "after": d, "op": "c", "ts_ms": 1, "source": {"ts_ms": 1}})),
        Form("JSON of a registry", plain, lambda d: b"\0\0\0\0\7" + _json(d)),
        Form("Avro", plain, in_avro, (), RegistryFrames(_Registry("AVRO", json.dumps(avro)))),  # type: ignore[arg-type]
        Form("Avro, its id in a header", plain, lambda d: in_avro(d)[5:], [("__value_schema_id", b"\0\0\0\0\7")], RegistryFrames(_Registry("AVRO", json.dumps(avro)))),  # type: ignore[arg-type]
        Form("CloudEvents with data_base64", plain, lambda d: _json(_ENVELOPE | {"data_base64": base64.b64encode(_json(d)).decode()}), [("content-type", b"application/cloudevents+json")]),
        Form("Protobuf", plain, lambda d: b"\0\0\0\0\7\0" + message(**d).SerializeToString(), (), RegistryFrames(_Registry("PROTOBUF", text))),  # type: ignore[arg-type]
    ]  # fmt: skip


def figures(*, quick: bool = False) -> list[Figure]:
    """Each form beside the plain one, of the best of some rounds in turn."""
    project = load_project(PROJECT)
    event = project.events[EVENT]
    runs = [_run(project, event, form) for form in forms(event)]
    best = [0.0] * len(runs)
    for _ in range(1 if quick else ROUNDS):
        best = [max(held, run()) for held, run in zip(best, runs, strict=True)]
    return [
        Figure(f"ingestion, routing alone, {form.name}", found, "events per CPU second", {"plain": best[0]})
        for form, found in zip(forms(event), best, strict=True)
    ]


def _run(project: Project, event: Event, form: Form) -> Callable[[], float]:
    declared = form.declare(event)
    views = {name: replace(view, source=declared) for name, view in project.views.items()}
    router = Router(Project(project.name, {EVENT: declared}, views), frames=form.frames)
    values = [form.write(json.loads(departure(number))) for number in range(EVENTS)]

    def run() -> float:
        started = time.process_time()
        for offset, value in enumerate(values):
            router.route(EVENT, 0, offset, START_MS + offset, None, value, form.headers)
        if router.refused:
            raise AssertionError(f"{form.name}: events were refused: {router.refused}")
        return EVENTS / (time.process_time() - started)

    return run


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode()


def _changed(event: Event, **changes: Any) -> Event:
    return replace(event, **changes)


def _formed(event: Event, form: Callable[[str, type], Field]) -> Event:
    return replace(event, fields={name: form(name, kind) for name, kind in event.types.items()})


def _protobuf(event: Event) -> tuple[Any, str]:
    """A message class with the fields of an event, and its .proto file."""
    file = descriptor_pb2.FileDescriptorProto(name="e.proto", syntax="proto3")
    message = file.message_type.add(name="E")
    for number, (name, kind) in enumerate(event.types.items(), 1):
        message.field.add(name=name, number=number, type=_PROTO[kind], label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    words = {9: "string", 3: "int64", 1: "double"}
    fields = "\n".join(f"{words[field.type]} {field.name} = {field.number};" for field in message.field)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("E")), f'syntax = "proto3";\nmessage E {{\n{fields}\n}}\n'


if __name__ == "__main__":
    for figure in figures():
        print(figure)
