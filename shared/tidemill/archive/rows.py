"""From the records of an application's topic to the rows of the event's table: accepted events only, each of them whole.

Whether an event is accepted is decided by the code that decides it for ingestion. A field has the value that views see: a number of a
declared `float` is a double, and a time or an id that the publisher left out comes from the CloudEvents attribute in its place. What has no
column keeps the publisher's text in `_extra`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import pyarrow as pa

from tidemill.archive.columns import EXTRA, ID, KNOWN, MOMENT, OFFSET, OWN, PARTITION, TIME, TOPIC, event_folder, table_schema
from tidemill.chunks import chunks
from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.records import KafkaRecord
from tidemill.routing.envelopes import Headers
from tidemill.routing.events import Accepted, WholeReader
from tidemill.routing.opening import Frames, unframed
from tidemill.routing.refusals import PassedOver, Refused
from tidemill.routing.uses import uses_of

_JSON = msgspec.json.Encoder()
AT_ONCE = 2_000  # more decoded events at a time take half as long again: Python's garbage collector looks at all of them


class EventRecord(KafkaRecord, Protocol):
    """A consumed record with all that belongs to an event."""

    @property
    def timestamp(self) -> int:
        """When it was published, in ms."""

    @property
    def headers(self) -> Headers:
        """Its headers."""


class Whole(NamedTuple):
    """An accepted event, its offset, and what it carries beyond the columns, as a JSON object (None: nothing)."""

    offset: int
    event: Accepted
    extra: str | None


@dataclass(frozen=True)
class EventTable:
    """The table of an event, as its writer fills it. `schema`: the columns that it fills."""

    name: str
    topic: str
    partitions: int
    schema: pa.Schema
    reader: WholeReader

    def rows_of(self, read: Mapping[int, Sequence[EventRecord]]) -> pa.Table:
        """The rows of records of several partitions."""
        batches = [self.rows(partition, part) for partition, records in sorted(read.items()) for part in chunks(records, AT_ONCE)]
        return pa.Table.from_batches(batches, self.schema).combine_chunks()

    def rows(self, partition: int, records: Iterable[EventRecord]) -> pa.RecordBatch:
        """The rows of the accepted events among the records of one partition, in their order."""
        return self.batch(partition, self.accepted(records))

    def accepted(self, records: Iterable[EventRecord]) -> list[Whole]:
        """The accepted events among some records."""
        read, found = self.reader.read, list[Whole]()
        for record in records:
            try:
                event = read(record.value, record.headers, record.timestamp)
            except (Refused, PassedOver):
                continue
            found.append(Whole(record.offset, event, rest_text(self.reader.rest)))
        return found

    def batch(self, partition: int, events: Sequence[Whole]) -> pa.RecordBatch:
        """The rows of accepted events of one partition."""
        arrays = {
            TOPIC: pa.repeat(pa.scalar(self.topic, pa.string()), len(events)),
            PARTITION: pa.repeat(pa.scalar(partition, pa.int64()), len(events)),
            OFFSET: pa.array([whole.offset for whole in events], pa.int64()),
            KNOWN: _moments([whole.event.known_ms for whole in events]),
            TIME: _moments([whole.event.time_ms for whole in events]),
            ID: pa.array([whole.event.id for whole in events], pa.string()),
            EXTRA: pa.array([whole.extra for whole in events], pa.string()),
        }
        data = [whole.event.data for whole in events]
        for field in self.schema:
            if field.name not in OWN.names:
                arrays[field.name] = pa.array(list(map(attrgetter(field.name), data)), field.type)
        return pa.record_batch([arrays[name] for name in self.schema.names], self.schema)


def event_table(project: Project, event: Event, found: pa.Schema | None = None, frames: Frames = unframed) -> EventTable:
    """The table of an event. `found`: the columns that it has already (None: there is no such table yet); `frames`: as in Opener."""
    schema = table_schema(event, found)
    declared = [name for name in schema.names if name not in OWN.names]
    return EventTable(
        event_folder(event.name), event.topic, event.partitions, schema, WholeReader(event, uses_of(project, event), declared, frames)
    )


def rest_text(rest: Mapping[str, msgspec.Raw]) -> str | None:
    """What an event carries beyond the columns, as a JSON object; None when that is nothing."""
    return _JSON.encode(rest).decode() if rest else None


def _moments(times_ms: Sequence[int]) -> Any:
    return pa.array(np.asarray(times_ms, np.int64) * 1000).cast(MOMENT)
