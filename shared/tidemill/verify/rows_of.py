"""The archived events in which a field has certain values. The table is read batch by batch and column by column, so memory depends on what is
found; of whole numbers, files and row groups whose bounds exclude the values are not read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ARROW, EXTRA, KNOWN, MOMENT, OWN
from tidemill.declarations import Event
from tidemill.offline.store import Snapshot
from tidemill.verify.entities import entity_sql, parts_of
from tidemill.verify.expressions import SqlPart
from tidemill.verify.fields import field_sql
from tidemill.verify.sql import database

Breathe = Callable[[], None]


def _key_sql(event: Event, fields: Sequence[str], archive: pa.Table) -> str:
    """An entity or a subject as text, over columns of the archive."""
    return entity_sql(fields, {name: SqlPart(field_sql(event, name, archive), event.base_type(name)) for name in fields})


def rows_of(
    snapshot: Snapshot,
    event: Event,
    key: Sequence[str],
    values: Collection[str],
    fields: Sequence[str],
    breathe: Breathe = lambda: None,
    known_ms: int = 0,
) -> pa.Table:
    """The events whose key, the fields `key` as text, is one of `values`, with the columns that `fields` need. `breathe` is called after each batch;
    events known before `known_ms` are left out (0: none).

    Raises OfflineUnavailable.
    """
    present = {column.name: column for column in snapshot.schema}
    names = [*OWN.names, *(name for name in dict.fromkeys([*key, *fields]) if name in present and name not in OWN.names)]
    db, found = database(0), list[pa.Table]()
    try:
        db.register("asked", pa.table({"asked": pa.array(sorted(values), pa.string())}))
        chosen_rows = _may_have(event, key, values, present)
        if known_ms:
            chosen_rows &= pc.field(KNOWN) >= pa.scalar(known_ms * 1000, MOMENT)
        for batch in snapshot.batches(names, chosen_rows):
            if batch.num_rows:
                part = pa.Table.from_batches([batch])
                db.register("part", part)
                chosen = f"SELECT * FROM part WHERE {_key_sql(event, key, part)} IN (SELECT asked FROM asked)"
                found.append(db.sql(chosen).to_arrow_table())
                breathe()
    finally:
        db.close()
    return pa.concat_tables(found) if found else _none(event, names)


def _none(event: Event, names: Sequence[str]) -> pa.Table:
    return pa.schema([OWN.field(name) if name in OWN.names else (name, ARROW[event.base_type(name)]) for name in names]).empty_table()


def _may_have(event: Event, key: Sequence[str], values: Collection[str], present: dict[str, pa.Field]) -> pc.Expression:
    """What excludes files and row groups by their bounds, of a column of whole numbers: pyarrow cannot compare texts with the bounds in files
    that delta-rs rewrote. A row without a value in the column may have it among the undeclared ones."""
    found, parts = pc.scalar(True), [parts_of(value, len(key)) for value in values if value]
    for place, field in enumerate(key):
        column = present.get(field)
        if event.base_type(field) is int and column is not None and column.type == ARROW[int]:
            wanted = pa.array(sorted({int(part[place]) for part in parts}), column.type)
            found &= pc.field(field).isin(wanted) | (pc.field(field).is_null() & pc.field(EXTRA).is_valid())
    return found
