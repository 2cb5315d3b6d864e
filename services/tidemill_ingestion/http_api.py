"""`POST /events`: events over HTTP. The code that checks events from Kafka checks them too; the answer follows once Kafka has them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from tidemill.clock import now_ms
from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, KafkaUnavailable
from tidemill.limits import MESSAGE_BYTES
from tidemill.records import DECODE_ERRORS, Position
from tidemill.routing.envelopes import Envelope, open_envelope
from tidemill.routing.foreign import foreign
from tidemill.routing.refusals import Refused
from tidemill.routing.router import Router
from tidemill.runtime import metrics
from tidemill.runtime.asgi import Scope
from tidemill.runtime.health import UNCHECKED, HealthBoard
from tidemill.runtime.routes import Answer
from tidemill_ingestion.publisher import Message, Publisher

MAX_EVENTS = 10_000
MAX_BODY_BYTES = 8 * MESSAGE_BYTES
_BREATH = 200  # after this many events, other requests get a turn, so that a large one does not delay small ones


class EventResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result for one event. `index`: its place in the request; then its position on Kafka and its id, or why it was refused."""

    index: int
    position: Position | None = None
    id: str | None = None
    reason: str | None = None
    field: str | None = None
    detail: str | None = None


class EventsAnswer(msgspec.Struct, frozen=True):
    """How many events were accepted and refused, and the result of each, in order."""

    accepted: int
    refused: int
    results: list[EventResult]


class EventBatch(msgspec.Struct, frozen=True):
    """A body with several events."""

    events: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


_ATTRIBUTES = frozenset(Envelope.__struct_fields__) - {"data", "data_base64", "datacontenttype"}
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECT = msgspec.json.Decoder(EventBatch)


class EventsEndpoint:
    """Handles `POST /events`. Status 200: all accepted; 422: none; 207: some."""

    def __init__(self, project: Project, publisher: Publisher, board: HealthBoard) -> None:
        self._publisher = publisher
        self._board = board
        self.use(project)

    def use(self, project: Project) -> None:
        """Judge events by these declarations from now on."""
        self._router = Router(project)

    async def handle(self, scope: Scope, body: bytes) -> Answer:
        """Answers one request. Raises BadRequest for a body that is not a request, and KafkaUnavailable."""
        binary = _binary(scope, body)
        events: Sequence[bytes | Envelope] = split_body(body, _content_type(scope)) if binary is None else [binary]
        results: list[EventResult | None] = []
        messages: list[Message] = []
        for index, event in enumerate(events):
            try:
                messages.append(self._message(event))
                results.append(None)
            except Refused as refused:
                metrics.EVENTS_REFUSED.labels(refused.reason).inc()
                results.append(EventResult(index, reason=refused.reason, field=refused.field, detail=refused.message))
            if index % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        positions = await self._publish(messages) if messages else []
        accepted = iter(zip(messages, positions, strict=True))
        whole = [result or _accepted(index, *next(accepted)) for index, result in enumerate(results)]
        refusals = len(events) - len(messages)
        status = 200 if not refusals else 207 if messages else 422
        return Answer(msgspec.json.encode(EventsAnswer(len(messages), refusals, whole)), status)

    async def _publish(self, messages: list[Message]) -> list[Position]:
        if (reason := self._board.missing.get("kafka")) is not None:
            what = "ingestion is starting" if reason == UNCHECKED else "Kafka is away"
            raise KafkaUnavailable(f"{what}, nothing was written", mend="send the request again later")
        return await self._publisher.publish(messages)

    def _message(self, event: bytes | Envelope) -> Message:
        """Check one event and make the record for its topic. Raises Refused."""
        envelope = event if isinstance(event, Envelope) else open_envelope(event)
        data = envelope.value
        declared = self._router.event_of(envelope.type)
        accepted = self._router.admit(declared.name, data, envelope.attributes, now_ms())
        event_id = envelope.id or accepted.id or uuid.uuid4().hex
        key = (envelope.partitionkey or event_id).encode()
        return Message(declared.topic, key, data, _headers(declared, envelope, event_id))


def split_body(body: bytes, content_type: str) -> Sequence[bytes]:
    """The events of a body: one object, an array (CloudEvents' batch mode), `{"events": [...]}`, or one per line. Raises BadRequest."""
    if not body.strip():
        raise BadRequest("the body is empty", mend='send {"type": "...", "data": {...}} or an array of such objects')
    events: Sequence[Any]
    if content_type.startswith("application/x-ndjson"):
        events = [line for line in body.splitlines() if line.strip()]
    else:
        try:
            array = body.lstrip()[:1] == b"["
            batch = _ARRAY.decode(body) if array else _OBJECT.decode(body).events
        except DECODE_ERRORS as error:
            if other := foreign(body):
                raise BadRequest(f"the body is {other.name}", mend="send JSON, in UTF-8") from None
            raise BadRequest(f"the body is not a JSON object or array: {error}", mend="send JSON, in UTF-8") from None
        events = [body] if batch is msgspec.UNSET else [bytes(event) for event in batch]
    if not events:
        raise BadRequest("the body has no events", mend="send at least one")
    if len(events) > MAX_EVENTS:
        raise BadRequest(f"the body has {len(events)} events", mend=f"send at most {MAX_EVENTS} in a request")
    return events


def _binary(scope: Scope, body: bytes) -> Envelope | None:
    """A CloudEvent in HTTP's binary mode: its attributes are headers `ce-...`, and the body is its data. None for any other request.

    Raises BadRequest when the headers are no attributes.
    """
    attributes = {name[3:].decode("latin-1"): value for name, value in scope["headers"] if name.startswith(b"ce-")}
    content_type = _content_type(scope)
    if not attributes or content_type.startswith("application/cloudevents"):
        return None
    if content_type and "json" not in content_type:
        raise BadRequest(
            f"content-type is {content_type!r}", mend="send the data of the event as JSON, with content-type: application/json"
        )
    try:
        texts = {name: unquote(value.decode(), errors="strict") for name, value in attributes.items() if name in _ATTRIBUTES}
        return msgspec.structs.replace(msgspec.convert(texts, Envelope), data=msgspec.Raw(body))
    except (UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadRequest(
            f"the headers ce-... are no CloudEvent: {error}", mend="send ce-type, ce-id, ce-source and ce-specversion"
        ) from None


def _accepted(index: int, message: Message, position: Position) -> EventResult:
    return EventResult(index, position, dict(message.headers)["ce_id"].decode())


def _headers(declared: Event, envelope: Envelope, event_id: str) -> list[tuple[str, bytes]]:
    """CloudEvents headers, as in Kafka's binary mode."""
    headers = [
        *declared.headers, ("ce_specversion", b"1.0"), ("ce_id", event_id.encode()),
        ("ce_source", (envelope.source or "tidemill.ingestion").encode()), ("content-type", b"application/json"),
    ]  # fmt: skip
    if envelope.time is not None:
        headers.append(("ce_time", envelope.time.encode()))
    if envelope.recordedtime is not None:
        headers.append(("ce_recordedtime", str(envelope.recordedtime).encode()))
    return headers


def _content_type(scope: Scope) -> str:
    return next((value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"content-type"), "")
