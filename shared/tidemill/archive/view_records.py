"""The records that archived events become in a view's log, in the order in which the events became known."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ID, KNOWN, MOMENT, TIME, TOPIC
from tidemill.archive.reading import read_events, unfinished
from tidemill.archive.view_rows import counted, entity_texts, fed
from tidemill.declarations import FeatureView
from tidemill.kafka.waves import Record
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.records import ViewRecord, encode

FILL = 2**33
"""The source partition of a record that was made from an archived event; its offset counts them. No topic has as many partitions."""

SLICE_EVENTS = 200_000
NO_HEADERS: list[tuple[str, bytes]] = []


class MadeRecords(NamedTuple):
    """Records by partition of the log, and what became of the events: `events` were read; for `passed_over` the view's `where` is not true,
    `unkeyed` have no key, `ahead` lie too far ahead."""

    records: Mapping[int, list[Record]]
    events: int
    passed_over: int
    unkeyed: int
    ahead: int


class RecordMaker:
    """Makes the records of a view, as the router would, from archived events (see `read_events`)."""

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        self._values: Callable[..., Any] = msgspec.defstruct(
            "Values", [(name, Any, None) for name in view.value_fields], omit_defaults=True, gc=False
        )
        self._number = 0

    def made(self, events: pa.Table) -> MadeRecords:
        """The records of some events, which follow those of earlier calls."""
        view, read = self.view, len(events)
        if view.condition is not None:
            events = events.filter(fed(view, events))
        keys = entity_texts(view.key.fields, events)
        keyed = pc.is_valid(keys)
        near = keyed
        if view.ahead_ms is not None:
            near = pc.and_(keyed, pc.less_equal(pc.subtract(events[TIME], events[KNOWN]), view.ahead_ms))
        rows, keys = events.filter(near), keys.filter(near).to_pylist()
        with_key = pc.sum(keyed).as_py() or 0
        return MadeRecords(self._records(rows, keys), read, read - len(events), len(events) - with_key, with_key - len(rows))

    def _records(self, rows: pa.Table, keys: list[str]) -> dict[int, list[Record]]:
        columns = [rows[name].to_pylist() for name in self.view.value_fields]
        values = map(self._values, *columns) if columns else (self._values() for _ in keys)
        number, partitions = self._number, self.view.partitions
        found: dict[int, list[Record]] = {partition: [] for partition in range(partitions)}
        adders = [found[partition].append for partition in range(partitions)]
        for text, time_ms, known_ms, event_id, value in zip(
            keys, counted(self.view, rows).to_pylist(), rows[KNOWN].to_pylist(), rows[ID].to_pylist(), values, strict=True
        ):
            key = text.encode()
            record = encode(ViewRecord(time_ms, known_ms, (FILL, number), value, event_id))
            adders[zlib.crc32(key) % partitions]((key, record, NO_HEADERS))
            number += 1
        self._number = number
        return found


def slices(store: OfflineStore, view: FeatureView, snapshot: Snapshot, most: int = SLICE_EVENTS) -> Iterator[pa.Table]:
    """The events of one version of the archive for a view, about `most` at a time, in the order of known; of a file that is not loaded to its
    end, none: a version of a view has all of a file or nothing of it.

    Events of one moment are never divided. Beside the slice it keeps eight bytes for each event.
    """
    left_out = pa.array(unfinished(snapshot), pa.string())
    known = np.sort(snapshot.scan([KNOWN], order=())[KNOWN].cast(pa.int64()).to_numpy())
    bounds = np.unique(known[most::most])
    for first, after in zip([None, *bounds], [*bounds, None], strict=True):
        filters = [pc.field(KNOWN) >= _moment(first)] * (first is not None) + [pc.field(KNOWN) < _moment(after)] * (after is not None)
        chosen = filters[0] & filters[-1] if filters else None
        events = read_events(store, view.source, view.read_fields, filters=chosen, snapshot=snapshot)
        yield events.filter(pc.invert(pc.is_in(events[TOPIC], left_out))) if len(left_out) else events


def _moment(known_us: Any) -> pa.Scalar:
    return pa.scalar(int(known_us or 0), pa.int64()).cast(MOMENT)
