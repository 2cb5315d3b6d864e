"""Rows and outcomes under drifts. Pure."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from tidemill.declarations import Event, Model
from tidemill.declarations.models import class_name
from tidemill.traffic.drifts import OUTCOME, Drift
from tidemill.traffic.invented import Row

_TRIES = 200
_MOST: dict[type, float] = {int: 2.0**53, float: sys.float_info.max}
Truth = float | str | None


def changed(event: Event, row: Row, drifts: Sequence[Drift], chance: random.Random, unseen: Callable[[str, random.Random], str]) -> Row:
    """A row with all drifts of its fields, in their order. `unseen`: makes a text that never came up."""
    made = dict(row)
    for drift in drifts:
        for name, value in row.items():
            if drift.is_of_field(event, name):
                made[name] = _moved(drift, event.base_type(name), made[name] if value is not None else None, chance, unseen)
    return made


def _moved(drift: Drift, kind: type, value: Any, chance: random.Random, unseen: Callable[[str, random.Random], str]) -> Any:
    if drift.kind in ("missing", "unseen"):
        if chance.random() >= drift.amount or value is None:
            return value
        return None if drift.kind == "missing" else unseen(value, chance)
    if value is None:
        return None
    moved = value + drift.amount if drift.kind == "shift" else value * drift.amount
    most = _MOST[int if kind is int else float]
    moved = min(max(moved, -most), most)  # the most that a field of this type holds
    return round(moved) if kind is int else moved


def truth_of(model: Model, row: Row | None) -> Truth:
    """What an event, or none, says of a question."""
    return model.outcome.absent if row is None else model.outcome.reader()(SimpleNamespace(**row))


def other_outcome(model: Model, row: Row | None, drifts: Sequence[Drift], chance: random.Random, anew: Callable[[], Row]) -> Row | None:
    """The outcome of a question under drifts: `flip` makes it another one, `rate` makes it true in a share of the cases. `row`: as it would be, None: no
    event, which stays so unless that is an answer; `anew`: draws another one."""
    if row is None and model.outcome.absent is None:
        return None
    for drift in drifts:
        if drift.target == OUTCOME and drift.kind in ("flip", "rate"):
            truth, drawn = truth_of(model, row), chance.random()
            if drift.kind == "flip":
                if drawn < drift.amount:
                    row = _until(model, row, lambda found, truth=truth: found != truth, chance, anew)  # type: ignore[misc]
            elif model.outcome.column.truth:
                wanted = float(drawn < drift.amount)
                row = _until(model, row, lambda found, wanted=wanted: found == wanted, chance, anew)  # type: ignore[misc]
    return row


def _until(model: Model, row: Row | None, fits: Callable[[Truth], bool], chance: random.Random, anew: Callable[[], Row]) -> Row | None:
    """The outcome, or another that fits; where the truth is a field of known values, that field is set."""
    if fits(truth_of(model, row)):
        return row
    if model.outcome.absent is not None and fits(model.outcome.absent):
        return None
    for _ in range(_TRIES):
        made = anew() if row is None else {**row, **_only(anew(), model.outcome.column.fields)}
        for value in chance.sample(values := _values(model), len(values)):
            if fits(truth_of(model, made | {model.outcome.value: value})):
                return made | {model.outcome.value: value}
        if fits(truth_of(model, made)):
            return made
    return row


def _only(row: Row, names: Sequence[str]) -> Row:
    return {name: row[name] for name in names}


def _values(model: Model) -> list[Any]:
    """The values that the field of a truth may have, where the truth is a field and they are known."""
    outcome = model.outcome
    if outcome.value in outcome.source.fields and outcome.source.base_type(outcome.value) is bool:
        return [False, True]
    return [one for one in outcome.classes if class_name(one)]
