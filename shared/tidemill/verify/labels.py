"""Questions and their answers, in SQL over the archived events: which event asks, and which outcome answers it.

An event that announces a subject is a question, once for each id; several may have one subject and one time. Its answer is the first outcome
of the subject that became known after its time and within the wait; an event that asks and answers answers only questions of earlier
moments. Without one, `absent` of the outcome is the answer once the wait is over, and before that no question of such a model has one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa

from tidemill.declarations import Model
from tidemill.durations import parse_ms
from tidemill.limits import TEXT_CHARACTERS
from tidemill.verify.entities import entity_sql, key_sql
from tidemill.verify.expressions import column_sql, moment_sql, text
from tidemill.verify.sql import Announcement, EventRows, Place, database

_ORDER = "known, topic, partition, place"
_FIRST = f"id IS NULL OR row_number() OVER (PARTITION BY id ORDER BY {_ORDER}) = 1"

_NEVER = 2**62
"""Later than any question."""


class Labelled(NamedTuple):
    """A question. `label`: its answer (None: there is none yet); `announcement`: the event that asks; `entities`: the entity of each of the
    model's views, None where it has none; `given`: the value of each of the model's requests, None where it has none."""

    subject: str
    at_ms: int
    label: float | str | None
    announcement: Announcement
    entities: tuple[str | None, ...]
    given: tuple[Any, ...]


def labelled(model: Model, announced: pa.Table, outcomes: pa.Table, until_ms: int) -> list[Labelled]:
    """All questions of a model in order of time and of known, from what was known before a moment. `announced`, `outcomes`: the archived
    events."""
    db = database(len(announced) + len(outcomes), None)
    try:
        db.register("announced", announced)
        db.register("brought", outcomes)
        found = db.execute(_labelled_sql(model, announced, outcomes, until_ms)).fetchall()
    finally:
        db.close()
    return [
        Labelled(subject, at_ms, label, Announcement(known_ms, Place(topic, partition, place), id), tuple(entities), tuple(given))
        for subject, at_ms, label, known_ms, topic, partition, place, id, entities, *given in found
    ]


def question_fields(model: Model) -> list[str]:
    """The fields of the event that asks: what is asked about, when, for which entities, and what a request carries."""
    views = [name for view in model.views for name in view.key.names]
    return list(dict.fromkeys([model.subject, model.at, *views, *(request.name for request in model.requests)]))


def outcome_fields(model: Model) -> list[str]:
    """The fields of its outcome's event that decide which question it answers, and how."""
    return [*model.outcome.column.fields, *([model.at] if model.on is model.outcome.source else [])]


def outcome_rows(model: Model, events: pa.Table) -> EventRows:
    """The events that bring outcomes, the table `brought`, with all fields that decide about them."""
    names = dict.fromkeys([model.outcome.subject, *outcome_fields(model)])
    return EventRows(model.outcome.source, list(names), events, "brought")


def asks_sql(model: Model, rows: EventRows) -> str:
    """Before which moment an outcome answers questions: that of its own question, if it asks one."""
    if model.on is not model.outcome.source:
        return str(_NEVER)
    return f"coalesce({moment_sql(rows.fields[model.at], model.on.earliest_ms)}, {_NEVER})"


def value_sql(model: Model, rows: EventRows) -> str:
    """The outcome of an event: a number, or the characters that are kept of a text."""
    value = column_sql(model.outcome.value, rows.fields)
    return f"left({value}, {TEXT_CHARACTERS})" if _is_text(model) else f"CAST({value} AS DOUBLE)"


def usable_sql(model: Model) -> str:
    """Whether `value` is an outcome."""
    return "value IS NOT NULL" if _is_text(model) else "isfinite(value)"


def _is_text(model: Model) -> bool:
    return model.outcome.source.types.get(model.outcome.value) is str


def _labelled_sql(model: Model, announced: pa.Table, brought: pa.Table, until_ms: int) -> str:
    wait = parse_ms(model.outcome.within)
    absent = model.outcome.absent
    answer = f"CASE WHEN o.known <= q.at_ms + {wait} THEN o.value"
    absent_sql = text(absent) if isinstance(absent, str) else f"CAST({absent} AS DOUBLE)"
    if absent is not None:
        over = f"q.at_ms + {wait} < {until_ms}"
        answer = f"CASE WHEN NOT {over} THEN NULL WHEN o.known <= q.at_ms + {wait} THEN o.value ELSE {absent_sql}"
    joined = (
        _after_asking(wait)
        if model.on is model.outcome.source
        else "asked q ASOF LEFT JOIN outcome o ON q.subject = o.subject AND q.at_ms < o.known"
    )
    given = "".join(f", q.given{i}" for i in range(len(model.requests)))
    return (
        f"WITH asked AS ({_asked_sql(model, announced, until_ms)}), outcome AS ({_outcomes_sql(model, brought, until_ms)}) "
        f"SELECT q.subject, q.at_ms, {answer} END, q.known, q.topic, q.partition, q.place, q.id, q.entities{given} "
        f"FROM {joined} ORDER BY q.at_ms, q.subject, q.known, q.topic, q.partition, q.place"
    )


def _after_asking(wait: int) -> str:
    """The same join where outcomes are questions, too, and answer only those of earlier moments. The next question of the subject bounds where
    an answer may lie, if it became known after the question: so that not all events of a subject are joined with all others."""
    bound = "SELECT q.*, o.known AS next_known FROM asked q ASOF LEFT JOIN outcome o ON q.subject = o.subject AND q.at_ms < o.asks"
    last = f"least(q.at_ms + {wait}, CASE WHEN q.next_known > q.at_ms THEN q.next_known ELSE q.at_ms + {wait} END)"
    first = "row_number() OVER (PARTITION BY q.topic, q.partition, q.place ORDER BY o.known, o.topic, o.partition, o.place) = 1"
    outcome = "o.value, o.known AS outcome_known"
    pairs = (
        f"SELECT q.*, {outcome} FROM ({bound}) q LEFT JOIN outcome o "
        f"ON q.subject = o.subject AND o.known > q.at_ms AND o.known <= {last} AND o.asks > q.at_ms QUALIFY {first}"
    )
    return f"({pairs}) q CROSS JOIN LATERAL (SELECT q.value AS value, q.outcome_known AS known) o"


def _asked_sql(model: Model, events: pa.Table, until_ms: int) -> str:
    rows = EventRows(model.on, question_fields(model), events, "announced")
    given = "".join(f", {rows.fields[request.name].sql} AS given{i}" for i, request in enumerate(model.requests))
    entities = ", ".join(entity_sql(view.key.names, rows.fields) for view in model.views)
    at, subject = moment_sql(rows.fields[model.at], model.on.earliest_ms), key_sql(rows.fields[model.subject])
    asked = f"SELECT *, {at} AS at_ms, {subject} AS subject, CAST([{entities}] AS VARCHAR[]) AS entities{given} FROM {rows.sql}"
    return f"SELECT * FROM ({asked}) WHERE at_ms < {until_ms} AND known < {until_ms} AND subject IS NOT NULL QUALIFY {_FIRST}"


def _outcomes_sql(model: Model, events: pa.Table, until_ms: int) -> str:
    outcome, rows = model.outcome, outcome_rows(model, events)
    value, subject = value_sql(model, rows), key_sql(rows.fields[outcome.subject])
    brought = f"SELECT *, {value} AS value, {subject} AS subject, {asks_sql(model, rows)} AS asks FROM {rows.sql}"
    usable = f"known < {until_ms} AND subject IS NOT NULL AND {usable_sql(model)}"
    once = f"SELECT * FROM ({brought}) WHERE {usable} QUALIFY {_FIRST}"
    return (
        once
        if model.on is outcome.source
        else f"SELECT * FROM ({once}) QUALIFY row_number() OVER (PARTITION BY subject, known ORDER BY {_ORDER}) = 1"
    )
