"""Checksums of records."""

from __future__ import annotations

import zlib


def proof_of(key: bytes | None, value: bytes | None) -> int:
    """CRC-32 over a record's key and value."""
    return zlib.crc32(value or b"", zlib.crc32(key or b""))
