"""Frames: what the serializers of schema registries put before an event, so that a reader finds its schema.

| first byte | then | written by |
|---|---|---|
| 0 | an id of 4 bytes | Confluent's serializers, and most others |
| 0 | an id of 8 bytes | Apicurio's before version 3. No registry gives a schema the id 0: four 0 bytes are the first half of such an id |
| 1 | a GUID of 16 bytes | Confluent's, into a header. This header and the value after it are one frame |

Numbers are big-endian.
"""

from __future__ import annotations

from uuid import UUID

HEADER = "__value_schema_id"
"""The header that holds a frame without the event, as `0` and an id or `1` and a GUID; for Protobuf, the place of the message follows."""

APICURIO_HEADERS = frozenset(("apicurio.value.globalid", "apicurio.value.contentid"))
"""Headers, by their plain names, in which Apicurio's serializers can put the id."""

HEADERS = APICURIO_HEADERS | {HEADER}

_SHORT, _LONG, _GUID = 5, 9, 17


def head_of(value: bytes) -> bytes:
    """The first byte of a frame and its id; shorter where the value is."""
    if value.startswith(b"\1"):
        return value[:_GUID]
    return value[:_LONG] if len(value) > _LONG and value.startswith(bytes(_SHORT)) else value[:_SHORT]


def schema_of(head: bytes) -> int | UUID | None:
    """By what a registry knows the schema; None for an id of 8 bytes, which says nothing to others than Apicurio's readers."""
    if len(head) == _LONG:
        return None
    return UUID(bytes=head[1:]) if len(head) == _GUID else int.from_bytes(head[1:], "big")


def is_head(given: bytes) -> bool:
    """Whether a header holds the beginning of a frame."""
    return len(given) >= (_GUID if given.startswith(b"\1") else _SHORT) and given[0] in (0, 1)
