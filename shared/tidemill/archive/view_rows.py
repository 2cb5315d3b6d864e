"""The archived events that a view folds, by the rules of routing: `where` is true, its key is there, and the event is not too far ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ID, KNOWN, TIME
from tidemill.declarations import FeatureView
from tidemill.declarations.expressions import Column, number_of
from tidemill.limits import KEY_BYTES

KEY = "_key"


def key_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The keys of a column of text or whole numbers, as text; null where there is no key, or none that an event may have."""
    texts = column.cast(pa.string())
    length = pc.binary_length(texts)
    fits = pc.and_(pc.greater(length, 0), pc.less_equal(length, KEY_BYTES))
    return pc.if_else(fits, texts, pa.scalar(None, pa.string()))


def entity_texts(fields: Sequence[str], columns: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """The keys of entities of these fields, as text; null where there is no key."""
    parts = [key_texts(columns[name]) for name in fields]
    if len(parts) == 1:
        return parts[0]
    quoted = [pc.replace_substring(pc.replace_substring(part, "\\", "\\\\"), '"', '\\"') for part in parts]
    joined = pc.binary_join_element_wise(*quoted, '","')
    return key_texts(pc.binary_join_element_wise('["', joined, '"]', ""))


def numbers_of(column: Column, events: pa.Table) -> Iterator[float | None]:
    """The value of a column for each event, computed as routing does."""
    make = msgspec.defstruct("Values", list(column.fields), frozen=True, gc=False)
    return map(number_of(column), map(make, *(events[name].to_pylist() for name in column.fields)))


def fed(view: FeatureView, events: pa.Table) -> pa.Array:
    """Whether each event feeds the view, as far as `where` says. Only for a view that has one."""
    assert view.condition is not None
    return pa.array(map(bool, numbers_of(view.condition, events)), pa.bool_())


def counted(view: FeatureView, events: pa.Table) -> pa.ChunkedArray:
    """When events count for a view (see `FeatureView.time_of`)."""
    return events[TIME] if view.waits else pc.min_element_wise(events[TIME], events[KNOWN])


def view_rows(view: FeatureView, events: pa.Table, keys: pa.Array) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """The rows of `events` (see `read_events`) that a view folds for these entities (text), with the entity in `_key`, and their places in `events`."""
    texts = entity_texts(view.key.fields, events)
    folded = pc.is_in(texts, value_set=keys, skip_nulls=True)
    if view.ahead_ms is not None:
        folded = pc.and_(folded, pc.less_equal(pc.subtract(events[TIME], events[KNOWN]), view.ahead_ms))
    places = pc.indices_nonzero(folded)
    if view.condition is not None:
        places = places.filter(fed(view, events.select(list(view.condition.fields)).take(places)))
    events = events.set_column(events.column_names.index(TIME), TIME, counted(view, events))
    rows = events.append_column(KEY, texts).select([KEY, KNOWN, TIME, ID, *view.value_fields])
    return rows if len(places) == len(rows) else rows.take(places), places.to_numpy().astype(np.int64)
