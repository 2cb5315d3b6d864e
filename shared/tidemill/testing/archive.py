"""An archive made from records, for tests: the events that routing accepts, in the tables in which the archive's writer would keep them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from tidemill.archive.columns import EXTRA, ID, KNOWN, MOMENT, OFFSET, PARTITION, TIME, TOPIC, event_folder, table_schema
from tidemill.declarations import Event
from tidemill.offline.store import OfflineStore, counter_name


class ArchivedEvent(NamedTuple):
    """An event as it is kept. `data`: all that it carried, declared or not."""

    topic: str
    partition: int
    offset: int
    known_ms: int
    time_ms: int
    id: str | None
    data: Mapping[str, Any]


def write_events(store: OfflineStore, event: Event, events: Iterable[ArchivedEvent]) -> None:
    """Appends events to the table of a declaration. Values that do not fit the columns lie in `_extra`, as those of undeclared fields do."""
    schema, added = table_schema(event), list(events)
    table = store.counted_table(event_folder(event.name), schema)
    table.open()
    rows = pa.Table.from_pylist([_row(schema, found) for found in added], schema)
    ends = {(found.topic, found.partition): found.offset + 1 for found in added}
    table.append(rows, {counter_name(*place): (table.counter(counter_name(*place)), end) for place, end in ends.items()})


def _row(schema: pa.Schema, event: ArchivedEvent) -> dict[str, Any]:
    extra = {name: value for name, value in event.data.items() if name not in schema.names}
    return {
        **{name: value for name, value in event.data.items() if name in schema.names},
        TOPIC: event.topic,
        PARTITION: event.partition,
        OFFSET: event.offset,
        KNOWN: pa.scalar(event.known_ms * 1000, MOMENT),
        TIME: pa.scalar(event.time_ms * 1000, MOMENT),
        ID: event.id,
        EXTRA: msgspec.json.encode(extra).decode() if extra else None,
    }
