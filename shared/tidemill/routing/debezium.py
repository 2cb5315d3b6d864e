"""A change of a database's row, as Debezium captures it, as an event: the row, with the fields of `DEBEZIUM_FIELDS`.

Debezium writes `{"before": ..., "after": ..., "source": {...}, "op": "u", "ts_ms": ...}`, and the same below `payload` if its converter adds
the schema. The bytes of the row stay as they are.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec

from tidemill.declarations.topics import DEBEZIUM_FIELDS
from tidemill.records import DECODE_ERRORS
from tidemill.routing.refusals import PassedOver, Reason, Refused, explain_data

_ADDED = [name.encode() for name in DEBEZIUM_FIELDS]
_NULL = msgspec.Raw(b"null")
_OPERATIONS = {b'"c"', b'"u"', b'"r"', b'"d"'}
_NO_ROWS = {b'"t"', b'"m"'}  # the table was truncated; a message of the database


class _Change(msgspec.Struct, gc=False):
    payload: msgspec.Raw = _NULL
    op: msgspec.Raw = _NULL
    before: msgspec.Raw = _NULL
    after: msgspec.Raw = _NULL
    source: msgspec.Raw = _NULL
    ts_ms: msgspec.Raw = _NULL
    status: msgspec.Raw = _NULL
    ddl: msgspec.Raw = _NULL


class _Origin(msgspec.Struct, gc=False):
    ts_ms: msgspec.Raw = _NULL


_CHANGE = msgspec.json.Decoder(_Change)
_SOURCE = msgspec.json.Decoder(_Origin)


class ChangedRow(NamedTuple):
    """The JSON of the event that a change is, and what tells it from other changes: a change that Debezium delivers again has the same `id`."""

    row: bytes
    id: str


def change_of(value: bytes, deletes: Literal["pass", "keep"]) -> ChangedRow:
    """The event that a change is. Raises PassedOver for a change of no row, and for a delete unless these are kept; Refused."""
    try:
        change = _CHANGE.decode(value)
        if _is_object(change.payload) and bytes(change.op) == b"null":
            change = _CHANGE.decode(change.payload)
        source_ms = _SOURCE.decode(change.source).ts_ms if _is_object(change.source) else _NULL
    except DECODE_ERRORS as error:
        raise explain_data(value, error, DEBEZIUM_FIELDS, None) from None
    operation = bytes(change.op)
    if operation in _NO_ROWS:
        raise PassedOver("no_row")
    if operation not in _OPERATIONS:
        if operation == b"null" and (bytes(change.status) != b"null" or bytes(change.ddl) != b"null"):
            raise PassedOver("no_row")  # where a transaction begins or ends; a change of the schema
        what = "has no op" if operation == b"null" else f"has op {operation.decode(errors='replace')}"
        raise Refused(
            Reason.BAD_ENVELOPE,
            f"the value is no change that Debezium captured: it {what}; leave envelope= out if these are plain rows",
            "op",
        )
    deleted = operation == b'"d"'
    if deleted and deletes == "pass":
        raise PassedOver("delete")
    row = bytes(change.before if deleted else change.after)
    if not row.startswith(b"{"):
        label = "before" if deleted else "after"
        mend = "; let the database log it (PostgreSQL: REPLICA IDENTITY FULL)" if deleted else ""
        raise Refused(Reason.MISSING_FIELD, f"{label} is {row[:40].decode(errors='replace')}, op is {operation.decode()}{mend}", label)
    before = _NULL if deleted else change.before
    values = operation, b"true" if deleted else b"false", change.ts_ms, source_ms, change.source, before
    members = b",".join(b'"%s":%s' % (name, bytes(found)) for name, found in zip(_ADDED, values, strict=True))
    inner = row[1 : row.rindex(b"}")].strip()
    parts = bytes(change.source), operation, bytes(change.before), bytes(change.after)  # not when Debezium read it: that differs
    told = blake2b(b"\0".join(parts), digest_size=16).hexdigest()
    return ChangedRow(b"{" + inner + b"," * bool(inner) + members + b"}", told)


def _is_object(text: msgspec.Raw) -> bool:
    return bytes(text).startswith(b"{")
