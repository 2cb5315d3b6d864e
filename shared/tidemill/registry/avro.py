"""Avro, by its writer's schema. Times stay whole numbers as Avro has them (`unit=` of a field says of what), decimals become numbers."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from tidemill.registry.client import Schema
from tidemill.registry.frames import Decode

_READING = (EOFError, IndexError, KeyError, OverflowError, TypeError, UnicodeDecodeError, ValueError, StopIteration)
"""What fastavro raises on bytes that are not of the schema."""


def avro_decoder(schema: Schema) -> Decode:
    """Raises ValueError when the schema is none."""
    named: dict[str, Any] = {}
    try:
        parsed = _parse(schema, named)
    except (SchemaParseException, UnknownType, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"it is no Avro schema: {type(error).__name__} {error}") from None

    def decode(body: bytes) -> Any:
        stream = BytesIO(body)
        try:
            found = fastavro.schemaless_reader(stream, parsed, None)
        except _READING as error:
            raise ValueError(f"{type(error).__name__} {error}".strip()) from None
        if left := len(body) - stream.tell():
            raise ValueError(f"{left} bytes are left over")
        return found

    return decode


def _parse(schema: Schema, named: dict[str, Any]) -> Any:
    """The schema, after those that it names."""
    for _, below in schema.references:
        _parse(below, named)
    return fastavro.parse_schema(_without_times(json.loads(schema.text)), named_schemas=named, _force=True)


def _without_times(schema: Any) -> Any:
    """The schema with plain numbers and texts in place of all logical types but decimals."""
    if isinstance(schema, list):
        return [_without_times(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_times(part) if key in ("type", "items", "values", "fields") else part
        for key, part in schema.items()
        if key != "logicalType" or part == "decimal"
    }
