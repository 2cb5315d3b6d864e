"""From a record of a topic to the JSON of an event: what is around it is taken off, in this order.

1. CloudEvents: attributes in headers (binary mode), or around the data (structured mode).
2. The frame of a schema registry, before the value or in a header: see `framing` and `Frames`.
3. The envelope of a database's change log: see `debezium`.

All events of one topic are opened alike; then the type says which of them a record is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import msgspec

from tidemill.declarations import Event
from tidemill.limits import MESSAGE_BYTES
from tidemill.records import BYTE_ORDER_MARK, DECODE_ERRORS
from tidemill.routing.debezium import change_of
from tidemill.routing.envelopes import BARE, Attributes, Given, Headers, attributes_of, given_headers, open_envelope
from tidemill.routing.foreign import Foreign, foreign, framed
from tidemill.routing.framing import APICURIO_HEADERS, HEADER, HEADERS, head_of, is_head
from tidemill.routing.refusals import PassedOver, Reason, Refused, explain_data

Frames = Callable[[bytes], bytes]
"""Turns a value that a registry's serializer framed into JSON; what it put into a header stands before the value. Raises Refused, and
RegistryUnavailable when the schema cannot be had now."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NO_HEADERS: Given = {}


class Opened(NamedTuple):
    """The JSON of an event, with what was around it. `headers`: by their plain names."""

    value: bytes
    attributes: Attributes
    headers: Given


class Opener:
    """Opens the records of an event's topic."""

    def __init__(self, event: Event, frames: Frames) -> None:
        self._frames, self._passes_empty = frames, event.empty == "pass"
        self._debezium, self._deletes = event.envelope == "debezium", event.deletes
        self._header = None if event.type is None or event.type.header is None else event.type.place[1]
        self._in_field = None if event.type is None or not event.type.keys else _type_decoder(event.type.keys)

    def open(self, value: bytes | None, headers: Headers) -> Opened:
        """Takes off what is around an event. Raises PassedOver, Refused, RegistryUnavailable."""
        if value is None or not (value or HEADER in given_headers(headers)):
            if self._passes_empty:
                raise PassedOver("empty")
            raise Refused(Reason.EMPTY, "the record has no value")
        given, attributes, in_frame = _NO_HEADERS, BARE, value.startswith(b"\0")
        if headers:
            given = given_headers(headers)
            attributes, structured = attributes_of(given)
            if structured:
                check_size(value)
                envelope = open_envelope(value.removeprefix(BYTE_ORDER_MARK))
                value, attributes = envelope.value, envelope.attributes
                in_frame = value.startswith(b"\0")
            elif not HEADERS.isdisjoint(given) and not is_json(value):
                value, in_frame = _with_header(value, given), True
        if not in_frame and not self._debezium:
            return Opened(value, attributes, given)
        check_size(value)
        data = self._frames(value) if in_frame else value
        return self.opened(data, attributes, given)

    def opened(self, data: bytes, attributes: Attributes, given: Given = _NO_HEADERS) -> Opened:
        """An event without its envelope. A change of a database without an id has one of its own. Raises PassedOver, Refused."""
        if not self._debezium:
            return Opened(data, attributes, given)
        change = change_of(data.removeprefix(BYTE_ORDER_MARK), self._deletes)
        return Opened(change.row, attributes if attributes.id is not None else attributes._replace(id=change.id), given)

    def type_of(self, opened: Opened) -> str | int | None:
        """Of what type a record is; None if that is not told. Raises Refused when it is no JSON."""
        if self._header is not None:
            found = opened.attributes.type if self._header == "ce_type" else opened.headers.get(self._header)
            return found.decode(errors="replace") if isinstance(found, bytes) else found
        return None if self._in_field is None else self.field_type(opened.value)

    def field_type(self, data: bytes) -> str | int | None:
        """The type that the JSON of an event tells; None if it tells none. Raises Refused when it is no JSON."""
        assert self._in_field is not None
        try:
            return self._in_field(data)
        except msgspec.ValidationError:
            return None
        except DECODE_ERRORS as error:
            if data.startswith(BYTE_ORDER_MARK):
                return self.field_type(data.removeprefix(BYTE_ORDER_MARK))
            raise explain_data(data, error, (), None) from None


def unframed(value: bytes) -> bytes:
    """The JSON in a registry's frame; any other format needs the registry. Raises Refused."""
    body = value[len(head_of(value)) :]
    if is_json(body):
        return body
    found = frame_of(value)
    raise Refused(Reason.FRAMED, f"the value is {found.name}: {found.mend}")


def frame_of(value: bytes) -> Foreign:
    """What is in a frame, as far as its bytes tell. Raises Refused for a value that begins with a 0 byte and is none."""
    found = framed(value) if value.startswith(b"\1") else foreign(value)
    if found is None:
        raise Refused(Reason.ENCODED, "the value begins with a 0 byte, and is too short for the frame of a schema registry: publish JSON")
    if not found.framed:
        raise Refused(Reason.ENCODED, f"the value is {found.name}: {found.mend}")
    return found


def is_json(value: bytes) -> bool:
    """Whether bytes are a whole JSON object."""
    if value[:1] not in (b"{", b" ", b"\n"):
        return False
    try:
        _OBJECT.decode(value)
    except DECODE_ERRORS:
        return False
    return True


def _with_header(value: bytes, given: Given) -> bytes:
    """The value after what its serializer put into a header. Raises Refused."""
    head = given.get(HEADER)
    if head is not None and is_head(head):
        return head + value
    if value.startswith(b"\0"):
        return value
    if head is not None:
        raise Refused(Reason.FRAMED, f"the value is no JSON, and the header {HEADER} is no id of a schema: {head[:20]!r}")
    name = next(iter(APICURIO_HEADERS & given.keys()))
    raise Refused(
        Reason.FRAMED,
        f"the value is framed by Apicurio's serializers, with the schema's id in the header {name}: let them write the id before the value, "
        "apicurio.registry.headers.enabled=false",
    )


def check_size(value: bytes) -> None:
    """Raises Refused when a value is too large."""
    if len(value) > MESSAGE_BYTES:
        raise Refused(Reason.OVERSIZED, f"the value has {len(value)} bytes, {MESSAGE_BYTES} are allowed")


def _type_decoder(keys: tuple[str, ...]) -> Callable[[bytes], str | int | None]:
    """A function that reads a type at a path. It raises DECODE_ERRORS."""
    kind: Any = str | int | None
    for key in reversed(keys):
        kind = msgspec.defstruct("Typed", [("below", kind, None)], rename={"below": key}, gc=False) | None
    decoder = msgspec.json.Decoder(kind)

    def read(data: bytes) -> str | int | None:
        found: Any = decoder.decode(data)
        for _ in keys:
            if found is None:
                return None
            found = found.below
        return cast("str | int | None", found)

    return read
