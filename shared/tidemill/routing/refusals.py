"""Why an event cannot be used: the fixed codes, and how an error of the decoder becomes one of them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator
from enum import StrEnum

import msgspec

from tidemill.errors import InvalidEvent
from tidemill.limits import KEY_BYTES
from tidemill.routing.foreign import foreign
from tidemill.routing.wire import WrongValue

_PATH = re.compile(r" - at `\$\.(.*)`$", re.DOTALL)
_FIELD = re.compile(r"^Object (missing required|contains unknown) field `(.*?)`(?: - at .*)?$", re.DOTALL)


class Reason(StrEnum):
    """Why an event cannot be used: a label of the metric, and a field of the dead letter and of the HTTP answer."""

    EMPTY = "empty"  # no value; a dead letter only of an event declared with empty="refuse"
    OVERSIZED = "oversized"  # larger than MESSAGE_BYTES
    NOT_JSON = "not_json"  # bytes that are not JSON
    FRAMED = "framed"  # by a schema registry: a 0 byte and the id of a schema come first
    ENCODED = "encoded"  # compressed, of a binary format, or not UTF-8, as far as the bytes tell
    NOT_OBJECT = "not_object"  # JSON, but not an object
    BAD_ENVELOPE = "bad_envelope"  # a CloudEvents attribute of a wrong type or encoding
    WRONG_EVENT = "wrong_event"  # its type is not the event of this topic
    UNKNOWN_EVENT = "unknown_event"  # its type is not an event of the project
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"  # only of an event declared with extra="refuse"
    WRONG_TYPE = "wrong_type"  # includes null where null is not allowed
    NOT_FINITE = "not_finite"  # NaN or Infinity
    OUT_OF_RANGE = "out_of_range"  # beyond the range of a double or of 64 bits
    BAD_KEY = "bad_key"  # an entity or subject that is empty or longer than KEY_BYTES
    BAD_ID = "bad_id"  # an id that is empty or longer than KEY_BYTES
    BAD_TIME = "bad_time"  # not a time, without a zone, or outside the days that the event allows
    FUTURE_TIME = "future_time"  # further ahead of the moment it became known than the event (or the named view) allows


class Refused(InvalidEvent):
    """An event that cannot be used. `field`: the field at fault, as the publisher calls it (None: the event as a whole)."""

    def __init__(self, reason: Reason, detail: str, field: str | None = None) -> None:
        super().__init__(reason, _utf8(detail)[:500])
        self.field = None if field is None else _utf8(field)[:200]


class PassedOver(Exception):
    """A record of an event's topic that is no event of this declaration, rightly. `why`: "empty" (no value), "type" (an event of another
    type), "delete" (a deleted row), "no_row" (a change of a database that is none of a row)."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _utf8(text: str) -> str:
    """The text, with lone halves of surrogate pairs escaped: JSON can name them, UTF-8 cannot encode them."""
    return text.encode(errors="backslashreplace").decode()


def bad_key(name: str, is_id: bool, detail: str) -> Refused:
    """The refusal of a key or an id that is empty or too long."""
    return Refused(Reason.BAD_ID if is_id else Reason.BAD_KEY, f"{name} may have 1 to {KEY_BYTES} bytes: {detail}", name)


def explain_data(value: bytes, error: Exception, fields: Collection[str], id_field: str | None) -> Refused:
    """Why the decoder refused the data of an event: its messages name the field and the type."""
    message = str(error)
    if isinstance(error, WrongValue):
        return Refused(Reason.BAD_TIME if error.is_time else Reason.WRONG_TYPE, f"{error.name}: {error.detail}", error.name)
    if not isinstance(error, msgspec.ValidationError):
        return _explain_malformed(value, message)
    field, path = _FIELD.match(message), _PATH.search(message)
    if field:
        named = f"{path[1]}.{field[2]}" if path else field[2]
        if field[1] == "missing required":
            return Refused(Reason.MISSING_FIELD, f"{named} is missing{meant(value, named, fields)}", named)
        return Refused(Reason.UNKNOWN_FIELD, f"{named} is not declared; the event has {', '.join(fields)}", named)
    if path is None:
        return Refused(Reason.NOT_OBJECT, f"the data: {message}")
    name, message = path[1], message[: path.start()]
    if "of length" in message:
        return bad_key(name, name == id_field, message)
    beyond = "out of range" in message or "` <= " in message or "` >= " in message
    return Refused(Reason.OUT_OF_RANGE if beyond else Reason.WRONG_TYPE, f"{name}: {message}", name)


def meant(value: bytes, missing: str, fields: Collection[str]) -> str:
    """For the message about a missing field: which undeclared field of the event has nearly its name. Empty without one. `fields`: the declared
    ones as paths, with dots; objects on the way to them are looked into."""
    try:
        near = difflib.get_close_matches(missing, list(_undeclared(value, fields)), 1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return f"; the event has {near[0]}, which is not declared" if near else ""


def _undeclared(value: bytes | msgspec.Raw, fields: Collection[str], above: str = "") -> Iterator[str]:
    """The paths of what an object carries beside the declared fields."""
    for key, member in msgspec.json.decode(value, type=dict[str, msgspec.Raw]).items():
        path = f"{above}{key}"
        if bytes(member).startswith(b"{") and any(name.startswith(f"{path}.") for name in fields):
            yield from _undeclared(member, fields, f"{path}.")
        elif path not in fields:
            yield path


def explain_envelope(value: bytes, error: Exception) -> Refused:
    """Why the decoder refused an event in one JSON object."""
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
    """Values of other formats, and NaN and Infinity, are not JSON but common, so they have reasons of their own; anything else that does not
    parse is NOT_JSON."""
    if other := foreign(value):
        return Refused(Reason.FRAMED if other.framed else Reason.ENCODED, f"the value is {other.name}: {other.mend}")
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
    """A number that JSON does not have."""

    __slots__ = ()
