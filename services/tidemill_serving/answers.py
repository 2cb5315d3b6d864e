"""Feast's answer in columns from served features, and Feast's error objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tidemill.errors import NotFound, TidemillError, UnknownView
from tidemill.kernel.served import Served
from tidemill.records import Status
from tidemill.runtime.http import error_answer
from tidemill.timestamps import rfc3339
from tidemill_serving.query import Query, UnknownFeatureService

_EPOCH = rfc3339(0)
_FEAST_CLASSES: dict[type[TidemillError], str] = {
    UnknownView: "FeatureViewNotFoundException",
    UnknownFeatureService: "FeatureServiceNotFoundException",
}


class AnswerColumn(msgspec.Struct):
    """One column of an answer, one entry per row."""

    values: list[Any]
    statuses: list[Status]
    event_timestamps: list[str]


class Metadata(msgspec.Struct, omit_defaults=True):
    """The names of the columns, and of the views being rebuilt, whose values are withheld in some row."""

    feature_names: list[str]
    rebuilding: list[str] = []


class FeatureAnswer(msgspec.Struct):
    """Feast's answer: `results[i]` belongs to `metadata.feature_names[i]`."""

    results: list[AnswerColumn]
    metadata: Metadata


_encode = msgspec.json.Encoder().encode  # NaN and infinities become null


def answer_body(query: Query, served: Mapping[tuple[int, bytes | None], Served], rebuilding: list[str]) -> bytes:
    """JSON of the answer. `served`: features by (index of the view in the plan, entity key)."""
    rows = range(query.rows)
    results = [AnswerColumn(query.entities[name], ["PRESENT"] * query.rows, [_EPOCH] * query.rows) for name in query.plan.join_keys]
    by_view = [[served[(view, key)] for key in keys] for view, keys in enumerate(query.keys)]
    times = [[_EPOCH if item.newest_ms is None else rfc3339(item.newest_ms) for item in items] for items in by_view]
    for _, view, feature in query.plan.columns:
        items = by_view[view]
        results.append(
            AnswerColumn([items[row].value(feature) for row in rows], [items[row].statuses[feature] for row in rows], times[view])
        )
    names = [*query.plan.join_keys, *(column.name for column in query.plan.columns)]
    return _encode(FeatureAnswer(results, Metadata(names, rebuilding)))


def feast_error(error: Exception) -> tuple[int, bytes]:
    """Status and body of an error: `error` and `mend` as in every service, and `module`, `class`, `message` for Feast's clients."""
    status, body = error_answer(error)
    shown: dict[str, Any] = msgspec.json.decode(body)
    known = _FEAST_CLASSES.get(type(error)) if isinstance(error, NotFound) else None
    module = "feast.errors" if known else "tidemill.errors"
    name = known or (type(error).__name__ if isinstance(error, TidemillError) else "TidemillError")
    return status, _encode(shown | {"module": module, "class": name, "message": shown["error"]})
