"""A row as its publisher would write it, and as a request has it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidemill.declarations import Event, Model
from tidemill.timestamps import UNITS
from tidemill.traffic.invented import Row


def published(event: Event, row: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of an event: each field at its path, times in their unit, and the event's type where it lies in a field."""
    data: dict[str, Any] = {}
    for name, value in row.items():
        unit = event.unit(name)
        if unit is not None and isinstance(value, int):
            ms, units = UNITS[unit]
            value = value * units // ms  # noqa: PLW2901
        _put(data, event.keys(name), value)
    if event.type is not None and event.type.keys:
        _put(data, event.type.keys, event.type.value)
    return data


def instance(model: Model, row: Row) -> dict[str, Any]:
    """A question about a row, as `POST /predict/{model}` takes it."""
    return {"subject": str(row[model.subject]), "time": row[model.at], "entities": {name: row.get(name) for name in model.request_fields}}


def _put(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    *way, last = keys
    for key in way:
        data = data.setdefault(key, {})
    data[last] = value
