"""An entity's key, and the partition where it lives."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any


def partition_of(key: bytes, partitions: int) -> int:
    """The partition where a key lives: its CRC-32 modulo the number of partitions."""
    return zlib.crc32(key) % partitions


def entity_key(value: object) -> bytes:
    """An entity's key in bytes: text as UTF-8, a whole number in decimal. Raises TypeError for anything else."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int) and not isinstance(value, bool):
        return b"%d" % value
    raise TypeError(f"{value!r} is not an entity: give text or a whole number")


def joined_key(parts: Sequence[object]) -> str:
    """The key of an entity of several fields: their texts as a JSON array, without spaces. Raises TypeError as `entity_key` does.

    Of a text, only quotes and backslashes are escaped.
    """
    quoted = (entity_key(part).decode().replace("\\", "\\\\").replace('"', '\\"') for part in parts)
    return "[" + ",".join(f'"{text}"' for text in quoted) + "]"


def entity_of(fields: Sequence[str]) -> Callable[[Any], Any]:
    """A function that takes the entity from the data of an event; None where one of its fields is null."""
    if len(fields) == 1:
        return attrgetter(fields[0])
    parts_from = attrgetter(*fields)

    def joined(data: Any) -> str | None:
        parts = parts_from(data)
        return None if None in parts else joined_key(parts)

    return joined


def asked_key(values: Sequence[object]) -> bytes | None:
    """The key of the entity that a request asks for, by one value for each of its fields; None where one is null. Raises TypeError."""
    if None in values:
        return None
    return entity_key(values[0] if len(values) == 1 else joined_key(values))
