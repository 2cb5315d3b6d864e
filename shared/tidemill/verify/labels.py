"""Questions and their answers, in SQL over the archived events: which event asks, and which outcome answers it.

An event that announces a subject is a question, once for each id; of several with one subject and one time, the last known counts. Its
answer is the first outcome of the subject that became known after its time and within the wait. Without one, `absent` of the outcome is the
answer once the wait is over.
"""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import pyarrow as pa

from tidemill.declarations import Event, Model
from tidemill.durations import parse_ms
from tidemill.verify.expressions import SqlPart, column_sql
from tidemill.verify.sql import EventRows, Place

_ORDER = "known, topic, partition, place"
_FIRST = f"id IS NULL OR row_number() OVER (PARTITION BY id ORDER BY {_ORDER}) = 1"


class Labelled(NamedTuple):
    """A question. `label`: its answer (None: there is none yet); `known_ms`, `place`: of the event that asks; `entities`: the entity of each
    of the model's views, None where it has none."""

    subject: str
    at_ms: int
    label: float | None
    known_ms: int
    place: Place
    entities: tuple[str | None, ...]


def labelled(model: Model, announced: pa.Table, outcomes: pa.Table, until_ms: int) -> list[Labelled]:
    """All questions of a model in order of time, from what was known before a moment. `announced`, `outcomes`: the archived events."""
    db = duckdb.connect()
    try:
        db.register("announced", announced)
        db.register("brought", outcomes)
        found = db.execute(_labelled_sql(model, announced.schema, outcomes.schema, until_ms)).fetchall()
    finally:
        db.close()
    return [Labelled(subject, at, label, known, Place(*place), tuple(entities)) for subject, at, label, known, *place, entities in found]


def _labelled_sql(model: Model, announced: pa.Schema, brought: pa.Schema, until_ms: int) -> str:
    wait = parse_ms(model.outcome.within)
    absent = getattr(model.outcome, "absent", None)
    answer = f"CASE WHEN o.known <= q.at_ms + {wait} THEN o.value"
    if absent is not None:
        answer += f" WHEN q.at_ms + {wait} < {until_ms} THEN CAST({absent} AS DOUBLE)"
    return (
        f"WITH asked AS ({_asked_sql(model, announced, until_ms)}), outcome AS ({_outcomes_sql(model, brought, until_ms)}) "
        f"SELECT q.subject, q.at_ms, {answer} END, q.known, q.topic, q.partition, q.place, q.entities "
        "FROM asked q ASOF LEFT JOIN outcome o ON q.subject = o.subject AND q.at_ms < o.known ORDER BY q.at_ms, q.subject"
    )


def _asked_sql(model: Model, columns: pa.Schema, until_ms: int) -> str:
    names = list(dict.fromkeys([model.subject, model.at, *(view.key.name for view in model.views)]))
    rows = EventRows(model.on, names, columns, "announced")
    entities = ", ".join(_as_text(rows.fields[view.key.name]) for view in model.views)
    at, subject = _as_ms(model.on, model.at, rows), _as_text(rows.fields[model.subject])
    asked = f"SELECT *, {at} AS at_ms, {subject} AS subject, CAST([{entities}] AS VARCHAR[]) AS entities FROM {rows.sql}"
    once = f"SELECT * FROM ({asked}) WHERE at_ms < {until_ms} AND known < {until_ms} AND subject IS NOT NULL QUALIFY {_FIRST}"
    last = ", ".join(f"{name} DESC" for name in _ORDER.split(", "))
    return f"SELECT * FROM ({once}) QUALIFY row_number() OVER (PARTITION BY subject, at_ms ORDER BY {last}) = 1"


def _outcomes_sql(model: Model, columns: pa.Schema, until_ms: int) -> str:
    outcome = model.outcome
    rows = EventRows(outcome.source, list(dict.fromkeys([outcome.subject, *outcome.column.fields])), columns, "brought")
    value, subject = f"CAST({column_sql(outcome.value, rows.fields)} AS DOUBLE)", _as_text(rows.fields[outcome.subject])
    brought = f"SELECT *, {value} AS value, {subject} AS subject FROM {rows.sql}"
    usable = f"known < {until_ms} AND subject IS NOT NULL AND isfinite(value)"
    once = f"SELECT * FROM ({brought}) WHERE {usable} QUALIFY {_FIRST}"
    return f"SELECT * FROM ({once}) QUALIFY row_number() OVER (PARTITION BY subject, known ORDER BY {_ORDER}) = 1"


def _as_text(field: SqlPart) -> str:
    return f"CAST({field.sql} AS VARCHAR)"


def _as_ms(event: Event, name: str, rows: EventRows) -> str:
    """A time in epoch ms, cut to ms."""
    sql = rows.fields[name].sql
    return sql if event.base_type(name) is int else f"epoch_us(TRY_CAST({sql} AS TIMESTAMPTZ)) // 1000"
