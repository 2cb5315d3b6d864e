"""The columns of an event's table, `events/<event>`.

| column | meaning |
|---|---|
| `_topic`, `_partition`, `_offset` | the event's position; for history from a file `load:<digest>`, 0 and the number of the row |
| `_known` | when it became known |
| `_time` | when it happened |
| `_id` | by which a second publication is known; null without one |
| `<field>` | a declared field; null when the event did not carry it |
| `_extra` | what else it carried, as a JSON object; null when that is nothing |

A field has a column of its own from the day it is declared. Before that day its values lie in `_extra`. They lie there for ever when the
table cannot have the column: it has one of this name (capitals do not count) with another type, or a column above has the name. A reader
looks at both places, so a field has all its values, whenever it was declared.
"""

from __future__ import annotations

import pyarrow as pa

from tidemill.declarations import Event

TOPIC, PARTITION, OFFSET = "_topic", "_partition", "_offset"
KNOWN, TIME, ID, EXTRA = "_known", "_time", "_id", "_extra"

LOADED = "load:"
"""How the topic of history from files begins; the digest of the file follows."""

MOMENT = pa.timestamp("us", tz="UTC")
"""Delta has microseconds only. Our moments are whole milliseconds."""

OWN = pa.schema(
    [
        (TOPIC, pa.string()),
        (PARTITION, pa.int64()),
        (OFFSET, pa.int64()),
        (KNOWN, MOMENT),
        (TIME, MOMENT),
        (ID, pa.string()),
        (EXTRA, pa.string()),
    ]
)
"""The columns that every event's table has."""

ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def event_folder(event: str) -> str:
    """Name of the table of an event."""
    return f"events/{event}"


def erased_folder(event: str) -> str:
    """Name of the table of positions that were erased from an event's table: so the audit does not miss them."""
    return f"erased/{event}"


def table_schema(event: Event, found: pa.Schema | None = None) -> pa.Schema:
    """The columns that the writer fills: the own ones, then those of the declared fields that the table can have. `found`: the columns
    that the table has already."""
    taken = {field.name.casefold(): field for field in OWN}
    taken |= {field.name.casefold(): field for field in found or () if field.name.casefold() not in taken}
    columns = list(OWN)
    for name, kind in event.types.items():
        column = pa.field(name, ARROW[kind])
        other = taken.setdefault(name.casefold(), column)
        if (other.name, other.type) == (column.name, column.type) and name not in OWN.names:
            columns.append(column)
    return pa.schema(columns)
