"""CloudEvents around an event: attributes in the headers of a record, or one JSON object with attributes and data."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec

from tidemill.declarations.topics import plain_header
from tidemill.limits import KEY_BYTES
from tidemill.records import BYTE_ORDER_MARK, DECODE_ERRORS
from tidemill.routing.refusals import Reason, Refused, explain_data, explain_envelope

Headers = Sequence[tuple[str, bytes | None]]
"""The headers of a record, in order. Of two with one name the last counts."""

Given = dict[str, bytes | None]
"""Headers by their plain names."""


class Attributes(NamedTuple):
    """The CloudEvents attributes beside the data; None where one is absent."""

    type: str | None = None
    id: str | None = None
    time: str | None = None
    recordedtime: str | int | None = None


BARE = Attributes()

Short = Annotated[str, msgspec.Meta(max_length=KEY_BYTES)]


class Envelope(msgspec.Struct, frozen=True):
    """An event with its attributes in one JSON object: CloudEvents' structured mode, and the body of `POST /events`. The data are JSON, or
    bytes in base64, which `open_envelope` turns into `data`; `datacontenttype` says what these bytes are."""

    type: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | None = None
    datacontenttype: Short | None = None
    id: Short | None = None
    time: Short | None = None
    recordedtime: Short | int | None = None
    source: Short | None = None
    partitionkey: Short | None = None

    @property
    def value(self) -> bytes:
        """The bytes of the data, as the publisher wrote them."""
        assert isinstance(self.data, msgspec.Raw)
        return bytes(self.data)

    @property
    def attributes(self) -> Attributes:
        """The attributes that the checks use."""
        return Attributes(self.type, self.id, self.time, self.recordedtime)


_ENVELOPE = msgspec.json.Decoder(Envelope)
_ANY = msgspec.json.Decoder(msgspec.Raw)
_BASE64 = "data_base64"
_JSON_TYPE = re.compile(r"\s*[^/;]+/(json|[^/;]+\+json)\s*(;.*)?", re.IGNORECASE)
_STRUCTURED = "application/cloudevents"
_plain = lru_cache(1024)(plain_header)


def open_envelope(value: bytes) -> Envelope:
    """Decode an event in one JSON object. Raises Refused."""
    try:
        envelope = _ENVELOPE.decode(value)
    except DECODE_ERRORS as error:
        raise explain_envelope(value, error) from None
    if envelope.data_base64 is not None:
        return msgspec.structs.replace(envelope, data=_bytes_of(envelope, envelope.data_base64), data_base64=None)
    if envelope.data is msgspec.UNSET:
        raise Refused(Reason.MISSING_FIELD, "data is missing", "data")
    return envelope


def _bytes_of(envelope: Envelope, text: str) -> msgspec.Raw:
    """What `data_base64` holds: JSON, or what a registry's serializer framed. Raises Refused."""
    if envelope.data is not msgspec.UNSET:
        raise Refused(Reason.BAD_ENVELOPE, "data and data_base64 are both there: give one of them", _BASE64)
    kind = envelope.datacontenttype
    if kind is not None and not _JSON_TYPE.fullmatch(kind):
        raise Refused(Reason.BAD_ENVELOPE, f"data_base64 is {kind!r:.80} (datacontenttype): publish JSON", _BASE64)
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(Reason.BAD_ENVELOPE, f"data_base64 is no base64: {error}", _BASE64) from None
    if not found.startswith(b"\0"):
        try:
            _ANY.decode(found.removeprefix(BYTE_ORDER_MARK))
        except DECODE_ERRORS as error:
            refused = explain_data(found, error, (), None)
            raise Refused(Reason(refused.reason), f"data_base64: {refused.message}", refused.field or _BASE64) from None
    return msgspec.Raw(found)


def given_headers(headers: Headers) -> Given:
    """Headers by their plain names."""
    return {_plain(name): value for name, value in headers}


def attributes_of(given: Given) -> tuple[Attributes, bool]:
    """The CloudEvents headers of a record, and whether its value is a whole CloudEvent in JSON. Raises Refused."""
    try:
        content_type = _text(given, "content_type") or ""
        attributes = Attributes(_text(given, "ce_type"), _text(given, "ce_id"), _text(given, "ce_time"), _text(given, "ce_recordedtime"))
    except UnicodeDecodeError as error:
        raise Refused(Reason.BAD_ENVELOPE, f"a CloudEvents header is not UTF-8: {error}") from None
    return attributes, content_type.lower().startswith(_STRUCTURED)


def _text(headers: Given, name: str) -> str | None:
    found = headers.get(name)
    return None if found is None else found.decode()
