"""Archived events for tests, written from raw events as the archive's columns say, without the archive's writer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from tidemill.archive.columns import OWN, table_schema
from tidemill.declarations import Event

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Raw(NamedTuple):
    """An accepted event. `data`: the JSON object as published; `aside`: the fields that no column had when it was archived."""

    topic: str
    partition: int
    offset: int
    known_ms: int
    time_ms: int
    id: str | None
    data: Mapping[str, Any]
    aside: frozenset[str] = frozenset()


def moment(time_ms: int) -> datetime:
    """Epoch ms as the archive has it."""
    return EPOCH + timedelta(milliseconds=time_ms)


def archived(event: Event, events: Sequence[Raw], without: frozenset[str] = frozenset()) -> pa.Table:
    """The table of an event. `without`: declared fields that the table has no column for."""
    schema = pa.schema([field for field in table_schema(event) if field.name in OWN.names or field.name not in without])
    rows = []
    for raw in events:
        kept = {name for name in schema.names if name not in OWN.names and name not in raw.aside}
        extra = {name: value for name, value in raw.data.items() if name not in kept and value is not None}
        own = [
            raw.topic,
            raw.partition,
            raw.offset,
            moment(raw.known_ms),
            moment(raw.time_ms),
            raw.id,
            json.dumps(extra) if extra else None,
        ]
        rows.append(dict(zip(OWN.names, own, strict=True)) | {name: raw.data.get(name) for name in kept})
    return pa.Table.from_pylist(rows, schema)
