"""The archived events in which a field has certain values. The table is read batch by batch and column by column, so memory depends on what is
found; of whole numbers, files and row groups whose bounds exclude the values are not read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ARROW, EXTRA, KNOWN, MOMENT, OWN
from tidemill.declarations import Event
from tidemill.offline.store import Snapshot
from tidemill.verify.expressions import SqlPart
from tidemill.verify.sql import database, field_sql, key_sql

Breathe = Callable[[], None]


def entity_sql(event: Event, field: str, archive: pa.Table) -> str:
    """An entity or a subject as text, over columns of the archive."""
    return key_sql(SqlPart(field_sql(event, field, archive), event.base_type(field)))


def rows_of(
    snapshot: Snapshot,
    event: Event,
    field: str,
    values: Collection[str],
    fields: Sequence[str],
    breathe: Breathe = lambda: None,
    known_ms: int = 0,
) -> pa.Table:
    """The events in which `field`, as text, is one of `values`, with the columns that `fields` need. `breathe` is called after each batch;
    events known before `known_ms` are left out (0: none).

    Raises OfflineUnavailable.
    """
    present = {column.name: column for column in snapshot.schema}
    names = [*OWN.names, *(name for name in dict.fromkeys([field, *fields]) if name in present and name not in OWN.names)]
    db, found = database(0), list[pa.Table]()
    try:
        db.register("asked", pa.table({"asked": pa.array(sorted(values), pa.string())}))
        chosen_rows = _may_have(event, field, values, present)
        if known_ms:
            chosen_rows &= pc.field(KNOWN) >= pa.scalar(known_ms * 1000, MOMENT)
        for batch in snapshot.batches(names, chosen_rows):
            if batch.num_rows:
                part = pa.Table.from_batches([batch])
                db.register("part", part)
                chosen = f"SELECT * FROM part WHERE {entity_sql(event, field, part)} IN (SELECT asked FROM asked)"
                found.append(db.sql(chosen).to_arrow_table())
                breathe()
    finally:
        db.close()
    return pa.concat_tables(found) if found else _none(event, names)


def _none(event: Event, names: Sequence[str]) -> pa.Table:
    return pa.schema([OWN.field(name) if name in OWN.names else (name, ARROW[event.base_type(name)]) for name in names]).empty_table()


def _may_have(event: Event, field: str, values: Collection[str], present: dict[str, pa.Field]) -> pc.Expression:
    """What excludes files and row groups by their bounds, of a column of whole numbers: pyarrow cannot compare texts with the bounds in files
    that delta-rs rewrote. A row without a value in the column may have it among the undeclared ones."""
    kind = event.base_type(field)
    column = present.get(field)
    if kind is not int or column is None or column.type != ARROW[kind]:
        return pc.scalar(True)
    wanted = pa.array(sorted(int(value) for value in values if value), column.type)
    return pc.field(field).isin(wanted) | (pc.field(field).is_null() & pc.field(EXTRA).is_valid())
