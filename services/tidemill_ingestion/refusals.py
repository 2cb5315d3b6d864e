"""Why an event cannot be used: the fixed codes, and how they are found from what the decoder says."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from enum import StrEnum

import msgspec

from tidemill.errors import InvalidEvent
from tidemill.limits import KEY_BYTES

_PATH = re.compile(r" - at `\$\.(.*)`$", re.DOTALL)
_FIELD = re.compile(r"^Object (missing required|contains unknown) field `(.*?)`(?: - at .*)?$", re.DOTALL)


class Reason(StrEnum):
    """Why an event cannot be used: label of the metric, field of the dead letter and of the HTTP answer."""

    EMPTY = "empty"  # no value at all: a tombstone
    OVERSIZED = "oversized"  # larger than MESSAGE_BYTES
    NOT_JSON = "not_json"  # bytes that are no JSON
    NOT_OBJECT = "not_object"  # JSON, but no object
    BAD_ENVELOPE = "bad_envelope"  # CloudEvents attributes that cannot be understood
    WRONG_EVENT = "wrong_event"  # its type names another event than its topic
    UNKNOWN_EVENT = "unknown_event"  # its type names no event of the project
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_TYPE = "wrong_type"  # null where null is not allowed is one too
    NOT_FINITE = "not_finite"  # NaN or Infinity
    OUT_OF_RANGE = "out_of_range"  # beyond a double or 64 bits
    BAD_KEY = "bad_key"  # an entity or subject that is empty or longer than KEY_BYTES
    BAD_ID = "bad_id"  # an id that is empty or longer than KEY_BYTES
    BAD_TIME = "bad_time"  # not a time, without a zone, or outside 1970 to 9999
    FUTURE_TIME = "future_time"  # further ahead of the moment it became known than the event, or the view named, allows


class Refused(InvalidEvent):
    """An event that cannot be used. `field`: the one at fault, as the publisher calls it; None: the event as a whole."""

    def __init__(self, reason: Reason, detail: str, field: str | None = None) -> None:
        super().__init__(reason, _utf8(detail)[:500])
        self.field = None if field is None else _utf8(field)[:200]


def _utf8(text: str) -> str:
    """The text, with what JSON can name but UTF-8 cannot write (half of a surrogate pair) escaped."""
    return text.encode(errors="backslashreplace").decode()


def bad_key(name: str, is_id: bool, detail: str) -> Refused:
    """A key or an id that is empty or too long."""
    return Refused(Reason.BAD_ID if is_id else Reason.BAD_KEY, f"{name} may have 1 to {KEY_BYTES} bytes: {detail}", name)


def explain_data(value: bytes, error: Exception, fields: Collection[str], id_field: str | None) -> Refused:
    """Why the decoder refused the data of an event; its messages name field and type."""
    message = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return _explain_malformed(value, message)
    field, path = _FIELD.match(message), _PATH.search(message)
    if field and field[1] == "missing required":
        return Refused(Reason.MISSING_FIELD, f"{field[2]} is missing", field[2])
    if field:
        return Refused(Reason.UNKNOWN_FIELD, f"{field[2]} is not declared; the event has {', '.join(fields)}", field[2])
    if path is None:
        return Refused(Reason.NOT_OBJECT, f"the data: {message}")
    name, message = path[1], message[: path.start()]
    if "of length" in message:
        return bad_key(name, name == id_field, message)
    beyond = "out of range" in message or "` <= " in message or "` >= " in message
    return Refused(Reason.OUT_OF_RANGE if beyond else Reason.WRONG_TYPE, f"{name}: {message}", name)


def explain_envelope(value: bytes, error: Exception) -> Refused:
    """Why an event in one JSON object was refused."""
    message = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return _explain_malformed(value, message)
    missing, path = _FIELD.match(message), _PATH.search(message)
    if missing:
        return Refused(Reason.MISSING_FIELD, f"{missing[2]} is missing", missing[2])
    if path:
        return Refused(Reason.BAD_ENVELOPE, f"{path[1]}: {message[: path.start()]}", path[1])
    return Refused(Reason.NOT_OBJECT, message)


def _explain_malformed(value: bytes, message: str) -> Refused:
    """NaN and Infinity are no JSON, but common; everything else that does not parse is one case."""
    try:
        found = json.loads(value, parse_constant=_Constant, parse_int=str)
    except (ValueError, RecursionError):
        return Refused(Reason.NOT_JSON, message)
    objects = [found, found.get("data")] if isinstance(found, dict) else []
    for fields in objects:
        for name, content in fields.items() if isinstance(fields, dict) else ():
            if isinstance(content, _Constant):
                return Refused(Reason.NOT_FINITE, f"{name} is {content}; write null, or leave the event out", name)
    return Refused(Reason.NOT_JSON, message)


class _Constant(str):
    """A number JSON does not know."""

    __slots__ = ()
