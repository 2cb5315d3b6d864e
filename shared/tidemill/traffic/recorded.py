"""Rows that were recorded, to draw events from in place of invented ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tidemill.declarations import Event
from tidemill.declarations.fields import NUMBER, TRUTHS, WHOLE
from tidemill.errors import TidemillError
from tidemill.traffic.invented import Row


def recorded_rows(event: Event, raws: Iterable[Mapping[str, Any]], where: str) -> list[Row]:
    """The rows of a file, as events: by the names of the fields, or as their publisher writes them; texts of CSV files become numbers. `where`: the file,
    for errors. Raises TidemillError when there is none, or the first one lacks a field."""
    rows = [{name: _value(event, name, raw) for name in event.fields} for raw in raws]
    if not rows:
        raise TidemillError(f"{where} has no row", mend="give a file with events in it")
    lacking = [name for name, value in rows[0].items() if value is None and not event.nullable(name) and not event.has_default(name)]
    if lacking:
        raise TidemillError(f"{where}: the first row has no {lacking[0]!r}", mend=f"a row of {event.name} has {', '.join(event.fields)}")
    return rows


def _value(event: Event, name: str, raw: Mapping[str, Any]) -> Any:
    value = raw[name] if name in raw else _published(event, name, raw)
    kind = event.base_type(name)
    if value == "" and kind is not str:
        return None
    if not isinstance(value, str) or kind is str:
        return float(value) if kind is float and type(value) is int else value
    return _of_text(value, kind)


def _published(event: Event, name: str, raw: Mapping[str, Any]) -> Any:
    try:
        return event.value(name, raw)
    except ValueError:
        return None


def _of_text(text: str, kind: type) -> Any:
    """What a cell of a CSV file means; what means nothing stays, and is refused when it is published."""
    if kind is bool:
        return TRUTHS.get(text.lower(), text)
    if not re.fullmatch(WHOLE if kind is int else NUMBER, text):
        return text
    return int(text.split(".", maxsplit=1)[0]) if kind is int else float(text)
