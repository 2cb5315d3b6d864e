"""An entity's key, and the partition where it lives."""

from __future__ import annotations

import zlib


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
