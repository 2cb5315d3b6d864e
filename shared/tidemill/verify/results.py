"""Results of logged predictions beside the archived events that bring outcomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tidemill.declarations import Model
from tidemill.durations import parse_ms
from tidemill.timestamps import rfc3339
from tidemill.verify.compare import Compared, Example
from tidemill.verify.entities import key_sql
from tidemill.verify.expressions import text
from tidemill.verify.labels import asks_sql, outcome_rows, usable_sql, value_sql
from tidemill.verify.sql import database


def check_results(model: Model, results: Sequence[Mapping[str, Any]], outcomes: pa.Table) -> Compared:
    """Compares results (rows of the table `results`) with the outcomes of their subjects: of the archived events, those that came live.

    An outcome must be one that became known after the prediction and within the wait. Which one of several came first, and whether one
    came before it was given up, depends on how partitions of the topic were read: what would be right then is undecided.
    """
    compared = Compared(f"results: {model.name}", values=len(results))
    brought = _brought(model, outcomes)
    within_ms = parse_ms(model.outcome.within)
    for row in results:
        fits = [
            (known, value)
            for known, value, asks in brought[row["subject"]]
            if row["time"] < known <= row["time"] + within_ms and row["time"] < asks
        ]
        told = (row["known"], row["outcome"] if row.get("label") is None else row["label"])
        given_up = (row["time"] + within_ms, model.outcome.absent)
        right = fits[0] if fits else given_up
        if told in fits or told == given_up:
            compared.undecided += told != right
        else:
            what = f"result of prediction {row['prediction']} of {row['subject']} at {rfc3339(row['time'])}"
            events = [
                {"known": known, "time": known, "id": None, "counts": True, "outcome": value} for known, value, _ in brought[row["subject"]]
            ]
            compared.note(Example(what, "outcome", _shown(*told), _shown(*right), events[-8:]), 3)
    return compared


def _brought(model: Model, outcomes: pa.Table) -> dict[str, list[tuple[int, float | str, int]]]:
    """The outcomes of each subject, when each became known, its value, and the moment before which it answers questions, in this order."""
    outcome, rows = model.outcome, outcome_rows(model, outcomes)
    value, subject = value_sql(model, rows), key_sql(rows.fields[outcome.subject])
    brought = f"SELECT {subject} AS subject, known, {value} AS value, {asks_sql(model, rows)} AS asks, partition, place FROM {rows.sql} WHERE topic = {text(outcome.source.topic)}"
    usable = f"subject IS NOT NULL AND {usable_sql(model)}"
    db, found = database(len(outcomes)), defaultdict[str, list[tuple[int, float | str, int]]](list)
    try:
        db.register("brought", outcomes)
        ordered = f"SELECT subject, known, value, asks FROM ({brought}) WHERE {usable} ORDER BY known, partition, place"
        for key, known, number, before in db.execute(ordered).fetchall():
            found[key].append((known, number, before))
    finally:
        db.close()
    return found


def _shown(known_ms: int, value: float | str | None) -> str:
    return f"{'never' if value is None else repr(value)}, known {rfc3339(known_ms)}"
