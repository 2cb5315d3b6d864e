"""Archived events as rows in the order in which they became known, with the fields that a declaration of today names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.cells import json_cell
from tidemill.archive.columns import ARROW, EXTRA, ID, KNOWN, LOADED, MOMENT, OFFSET, PARTITION, TIME, TOPIC, event_folder
from tidemill.declarations import Event
from tidemill.errors import DoubledRows
from tidemill.limits import EXACT
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.records import DECODE_ERRORS
from tidemill.routing.wire import opened, tree_of, without

PLACE = [KNOWN, TOPIC, PARTITION, OFFSET]
"""The order of events: when they became known; of one moment, where they lie."""

_MS = pa.timestamp("ms", tz="UTC")
_AT, _NEVER = "at", 2**63 - 1
_DECODED = 1_000
_CHANCE = 1e-6
_ABSENT = object()


def read_events(
    store: OfflineStore,
    event: Event,
    fields: Collection[str],
    *,
    filters: pc.Expression | None = None,
    snapshot: Snapshot | None = None,
    doubled: bool = False,
) -> pa.Table:
    """The archived events of a declaration: `_known` and `_time` in epoch ms (int64), `_id`, `_topic`, `_partition`, `_offset`, then `fields`
    with the types of the declaration, in the order of `PLACE`. An event that was published twice is there twice.

    A field is null where the event did not carry it, or carried a value of another type, unless it has a default. `filters`: on the own columns, as
    `Snapshot.scan` takes them. `snapshot`: a version of the table (default: the newest); no rows when the table does not exist.
    Raises DoubledRows when a position is there twice, unless `doubled` allows for it; TornTable, OfflineUnavailable.
    """
    snapshot = snapshot or store.find(event_folder(event.name))
    if snapshot is None:
        return _none(event, fields)
    stored = [name for name in fields if name in snapshot.columns]
    table = snapshot.scan([*PLACE, TIME, ID, EXTRA, *stored], filters, order=())
    table = _sorted(table)
    if not doubled:
        _check_once(snapshot.name, table)
    columns = {KNOWN: _epoch_ms(table[KNOWN]), TIME: _epoch_ms(table[TIME])}
    columns |= {name: table[name] for name in (ID, TOPIC, PARTITION, OFFSET)}
    return pa.table(columns | field_values(event, table, fields))


def field_values(event: Event, rows: pa.Table, fields: Iterable[str]) -> dict[str, pa.ChunkedArray]:
    """What archived rows say of fields that are declared today, each with its type. `rows`: columns of the table."""
    extra = _Extra(event, rows[EXTRA], rows[TOPIC])
    return {name: extra.completed(name, rows[name] if name in rows.column_names else None) for name in fields}


def loads(snapshot: Snapshot) -> set[str]:
    """The files of which all history is loaded, by the first 16 digits of their digest. Raises OfflineUnavailable, TornTable."""
    return {topic.removeprefix(LOADED) for topic in _files(snapshot) if snapshot.counter(f"{topic}:done")}


def unfinished(snapshot: Snapshot) -> dict[str, int]:
    """The files of which only a part is loaded, since the run that loads them goes on or was broken off: their topics, and how many events the
    archive has of each. Raises OfflineUnavailable, TornTable."""
    return {topic: rows for topic, rows in _files(snapshot).items() if not snapshot.counter(f"{topic}:done")}


def _files(snapshot: Snapshot) -> Counter[str]:
    """The topics of loaded history, each with its rows."""
    of_files = (pc.field(TOPIC) >= LOADED) & (
        pc.field(TOPIC) < LOADED[:-1] + chr(ord(LOADED[-1]) + 1)
    )  # bounds, so that files are passed over
    found = Counter[str]()
    for batch in snapshot.batches([TOPIC], of_files):
        found.update({each["values"]: each["counts"] for each in pc.value_counts(batch[TOPIC]).to_pylist()})
    return found


def lacking(snapshot: Snapshot, event: Event) -> set[str]:
    """The declared fields that some archived event may lack. Raises OfflineUnavailable."""
    if not snapshot.rows:
        return set()
    named = [name for name in event.fields if not event.has_default(name)]
    return {name for name in named if name not in snapshot.columns or snapshot.any(pc.field(name).is_null())}


def beginnings(snapshot: Snapshot, event: Event) -> dict[str, int | None]:
    """The declared fields that the earlier of the archived events do not have: when the first event that has one became known, epoch ms, or
    None when no event has it. Raises OfflineUnavailable.

    Left out are fields with a column of their type, since these events were archived when the field was declared: null is what they say. And
    fields that the first events may lack by chance, as an optional one that few events carry at all. And fields with a default.
    """
    if not snapshot.rows:
        return {}
    declared = {field.name: field.type for field in snapshot.schema}
    named = [name for name, kind in event.types.items() if declared.get(name) != ARROW[kind] and not event.has_default(name)]
    found = {name: _first(snapshot, event, name, declared) for name in named}
    return {name: first.known_ms for name, first in found.items() if first.known_ms is None or not _by_chance(snapshot, first)}


class _First(NamedTuple):
    """The first event that has a field, when it became known, and how many seem to have it."""

    known_ms: int | None
    having: int


def _first(snapshot: Snapshot, event: Event, name: str, declared: Mapping[str, pa.DataType]) -> _First:
    """Only values that may be earlier than what is found already are decoded."""
    having, first = 0, _NEVER
    carries = pc.match_substring(pc.field(EXTRA), msgspec.json.encode(event.keys(name)[-1]).decode())
    chosen, columns = (carries | pc.field(name).is_valid(), [name]) if name in declared else (carries, [])
    for batch in snapshot.batches([KNOWN, TOPIC, EXTRA, *columns], chosen):
        having += batch.num_rows
        rows = pa.table(batch).append_column(_AT, _epoch_ms(pa.chunked_array([batch[KNOWN]])))
        rows = rows.filter(pc.less(rows[_AT], first)).sort_by(_AT)
        for part in rows.to_batches(_DECODED):
            values = _Extra(event, pa.chunked_array([part[EXTRA]]), pa.chunked_array([part[TOPIC]])).completed(
                name, pa.chunked_array([part[name]]) if columns else None
            )
            if values.null_count < len(values):
                first = part[_AT][values.is_valid().index(True).as_py()].as_py()
                break
    return _First(None if first == _NEVER else first, having)


def _by_chance(snapshot: Snapshot, first: _First) -> bool:
    """Whether all events before the first one that has a field may lack it by chance, judged by how many have it from then on."""
    before = sum(batch.num_rows for batch in snapshot.batches([], pc.field(KNOWN) < pa.scalar(first.known_ms, _MS).cast(MOMENT)))
    lacked = max(
        1 - first.having / max(snapshot.rows - before, 1), 0.0
    )  # before it, too, events may seem to have the field, as another type
    return not before or lacked**before > _CHANCE


def _sorted(table: pa.Table) -> pa.Table:
    """The rows in the order of `PLACE`."""
    order = pc.sort_indices(table, [(name, "ascending") for name in PLACE])
    if (np.diff(order.to_numpy()) == 1).all():
        return table
    for name in table.column_names:  # one after the other, since all of them take much memory
        table = table.drop_columns([name]).append_column(name, table[name].take(order))
    return table


def _check_once(name: str, table: pa.Table) -> None:
    """Raises DoubledRows when a position is there twice. Rows are in the order of `PLACE`, so two of them stand side by side."""
    same = [pc.equal(table[column].slice(1), table[column].slice(0, max(len(table) - 1, 0))) for column in PLACE]
    twice = pc.sum(reduce(pc.and_, same)).as_py() or 0
    if twice:
        raise DoubledRows(name, len(table), len(table) - twice)


def _none(event: Event, fields: Iterable[str]) -> pa.Table:
    types = [
        (KNOWN, pa.int64()),
        (TIME, pa.int64()),
        (ID, pa.string()),
        (TOPIC, pa.string()),
        (PARTITION, pa.int64()),
        (OFFSET, pa.int64()),
    ]
    return pa.schema([*types, *((name, ARROW[event.base_type(name)]) for name in fields)]).empty_table()


def _epoch_ms(moments: pa.ChunkedArray) -> pa.ChunkedArray:
    return moments.cast(_MS).cast(pa.int64())


def undeclared(event: Event, extra: str | None) -> dict[str, msgspec.Raw]:
    """What a row has in `_extra` that is no part of a declared field, as the publisher wrote it."""
    tree = tree_of(event, event.fields)
    rest = without(opened(extra or "{}", tree), tree, lambda *_: False)
    return {key: msgspec.Raw(msgspec.json.encode(member)) for key, member in rest.items()}


class _Extra:
    """The undeclared part of each row, decoded when a field asks for it."""

    def __init__(self, event: Event, texts: pa.ChunkedArray, topics: pa.ChunkedArray) -> None:
        self._event, self._texts, self._topics = event, texts, topics
        self._objects: list[dict[str, Any] | None] | None = None

    def completed(self, name: str, stored: pa.ChunkedArray | None) -> pa.ChunkedArray:
        """A field's column of its type: the stored value where there is one, else that of the undeclared part, else the default."""
        kind = self._event.base_type(name)
        wanted = ARROW[kind]
        if stored is None:
            stored = pa.chunked_array([pa.nulls(len(self._texts), wanted)])
        elif stored.type != wanted:
            stored = pa.chunked_array([pa.array([_as(kind, value) for value in stored.to_pylist()], wanted)])
        default = self._event.forms[name].default if self._event.has_default(name) else None
        if not stored.null_count:
            return stored
        if self._texts.null_count == len(self._texts):
            return stored if default is None else pc.fill_null(stored, pa.scalar(default, wanted))
        if self._objects is None:
            self._objects = [None if text is None else msgspec.json.decode(text) for text in self._texts.to_pylist()]
        loaded = pc.starts_with(self._topics, LOADED).to_pylist()
        found = [self._value(name, carried, of_file, default) for carried, of_file in zip(self._objects, loaded, strict=True)]
        return pc.coalesce(stored, pa.chunked_array([pa.array(found, wanted)]))

    def _value(self, name: str, carried: dict[str, Any] | None, of_file: bool, default: Any) -> Any:
        given = _ABSENT if carried is None else member_at(carried, self._event.keys(name), _ABSENT)
        if given is _ABSENT and of_file and carried is not None:
            given = carried.get(self._event.published(name), carried.get(name, _ABSENT))
        if given is _ABSENT:
            return default
        if given is None:
            return None if self._event.nullable(name) else default
        kind, form = self._event.base_type(name), self._event.forms.get(name)
        given = _of_file(given, kind) if of_file else given
        found = given if form is not None and form.lenient and isinstance(given, str) else _as(kind, given)
        if form is not None and form.converts:
            try:
                found = form.value(found)
            except ValueError:
                found = None
        return default if found is None else found


def member_at(carried: Any, keys: tuple[str, ...], absent: Any = None) -> Any:
    """What lies at a path in decoded JSON; `absent` where there is nothing."""
    for key in keys:
        if not isinstance(carried, dict) or key not in carried:
            return absent
        carried = carried[key]
    return carried


def _of_file(value: Any, kind: type) -> Any:
    """A value from a file: in CSV numbers are texts, as long as nothing declares them."""
    if not isinstance(value, str) or kind is str:
        return value
    try:
        return msgspec.json.decode(msgspec.json.encode(json_cell(value, kind)))
    except msgspec.DecodeError:  # no JSON has this number
        return None


def _as(kind: type, value: Any) -> Any:
    """A value as an event of today would have it: 300.0 is a whole number too. None when its type is another one."""
    if kind is int and isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < EXACT else None
    try:
        converted: Any = msgspec.convert(value, kind)
        return converted if kind is not int or -(2**63) <= converted < 2**63 else None
    except DECODE_ERRORS:
        return None
