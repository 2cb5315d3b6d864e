"""Served values, logged inputs and training rows beside what SQL says.

What a store had applied at a moment is not known to the millisecond: an event is on its way for a while, and events of different partitions
may overtake each other. So SQL is asked for every knowledge and order that is possible, and one of them must give all values of an answer.
A value that none of them gives is a difference. One that would depend on the order of partitions is undecided, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tidemill.verify.sql import BY_KNOWN, AskedMoment, SqlAnswer, SqlView, Value

SETTLED_MS = 10_000
"""How long an event is on its way at most: one that became known earlier is in the stores and in the archive."""

_SHIFTS_MS = (BY_KNOWN, 0, SETTLED_MS, -SETTLED_MS)
_FLOAT32 = 2.0**-23
_MOST_MOMENTS = 20
_EVENTS = 8


class Told(NamedTuple):
    """Features as someone told them. `asked`: every knowledge that this one may have had. `values`: by feature, state (None: not told)
    and value. `rounded`: the values are float32. `may_lack`: a value that is not there may have been withheld, and nobody told. `what`: the
    question, for a person."""

    what: str
    asked: Sequence[AskedMoment]
    values: Mapping[str, tuple[str | None, Value | None]]
    rounded: bool = False
    may_lack: bool = False


class Example(NamedTuple):
    """A value that differs. `told`, `sql`: values and states as text; `events`: the newest events that SQL used."""

    what: str
    feature: str
    told: str
    sql: str
    events: list[dict[str, Any]]


@dataclass
class Compared:
    """How many values were compared, and how many of them differ, are undecided, or were withheld (INVALID, or null in a log, although SQL
    has a value: a view that is being rebuilt, or that was not fed when the window began). `examples`: the first ones that differ."""

    what: str
    values: int = 0
    differ: int = 0
    undecided: int = 0
    withheld: int = 0
    examples: list[Example] = field(default_factory=list)

    def note(self, example: Example, most: int) -> None:
        """Counts a value that differs."""
        self.differ += 1
        if len(self.examples) < most:
            self.examples.append(example)


def added(found: Sequence[Compared]) -> list[Compared]:
    """What was compared of the same thing in several parts, as one."""
    whole: dict[str, Compared] = {}
    for part in found:
        one = whole.setdefault(part.what, Compared(part.what))
        one.values, one.differ = one.values + part.values, one.differ + part.differ
        one.undecided, one.withheld = one.undecided + part.undecided, one.withheld + part.withheld
        one.examples += part.examples
    return list(whole.values())


def possible(sql: SqlView, entity: str, at_ms: int, when_ms: int) -> list[AskedMoment]:
    """Every knowledge that an answer given at `when_ms` may have had of an entity: of an event that became known within `SETTLED_MS` of this
    moment it is open whether it was seen. Empty: there are too many."""
    from_ms = when_ms - SETTLED_MS
    moments = [from_ms, *(known + 1 for known in sql.known_after(entity, from_ms) if known <= when_ms + SETTLED_MS)]
    return [AskedMoment(entity, at_ms, moment) for moment in moments] if len(moments) <= _MOST_MOMENTS else []


def compare(what: str, sql: SqlView, told: Sequence[Told], *, shifts_ms: Sequence[int | None] = _SHIFTS_MS, examples: int = 3) -> Compared:
    """Compares features with SQL. `shifts_ms`: the orders that are possible (see `SqlView.answers`). `examples`: how many to keep."""
    compared = Compared(what)
    open_to_doubt = [one for one in told if one.asked]
    compared.undecided += sum(len(one.values) for one in told if not one.asked)
    answers = sql.answers([one.asked[-1] for one in open_to_doubt], shifts_ms[0])
    for one, answer in zip(open_to_doubt, answers, strict=True):
        compared.values += len(one.values)
        _count_certain(compared, one, answer)
        if any(_agrees(one, answer, name) is False for name in one.values):
            _look_again(compared, sql, one, shifts_ms, examples)
    return compared


def _count_certain(compared: Compared, one: Told, answer: SqlAnswer) -> None:
    compared.undecided += sum(_agrees(one, answer, name) is None for name in one.values)
    compared.withheld += sum(_withheld(one, answer, name) for name in one.values)


def _look_again(compared: Compared, sql: SqlView, one: Told, shifts_ms: Sequence[int | None], examples: int) -> None:
    """Asks for each possible knowledge and order. When one gives each value, but none gives all of them, they are of different moments: those
    that not all of them give differ together."""
    orders = [sql.answers(one.asked, shift_ms) for shift_ms in shifts_ms]
    answers = [answer for order in orders for answer in order]
    if any(all(_agrees(one, answer, name) is not False for name in one.values) for answer in answers):
        return
    never = [name for name in one.values if all(_agrees(one, answer, name) is False for answer in answers)]
    for name in never or [name for name in one.values if any(_agrees(one, answer, name) is False for answer in answers)]:
        if len({repr([answer.features[name][:2] for answer in order]) for order in orders}) > 1:
            compared.undecided += 1
            continue
        newest = orders[0][-1].features[name]
        state, value = one.values[name]
        events = sql.events(one.asked[-1], _EVENTS) if len(compared.examples) < examples else []
        compared.note(Example(one.what, name, _text(state, value), _text(newest.state, newest.value), events), examples)


def _text(state: str | None, value: Value | None) -> str:
    shown = "null" if value is None else repr(value)
    return shown if state in (None, "PRESENT") else f"{shown} {state}"


def _withheld(one: Told, answer: SqlAnswer, name: str) -> bool:
    (state, value), sql = one.values[name], answer.features[name]
    if state is None:
        return one.may_lack and _missing(value) and sql.value is not None
    return state == "INVALID" and sql.state != "INVALID"


def _agrees(one: Told, answer: SqlAnswer, name: str) -> bool | None:
    state, value = one.values[name]
    if _withheld(one, answer, name):
        return True
    return _agrees_in_value(answer, name, value, one.rounded) if state is None else agrees(answer, name, state, value)


def _missing(value: Value | None) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _agrees_in_value(answer: SqlAnswer, name: str, value: Value | None, rounded: bool) -> bool | None:
    """Whether a value whose state is not told is what SQL says."""
    sql = answer.features[name]
    missing = _missing(value)
    if not math.isfinite(sql.slack) or (answer.vague and missing):
        return None
    if missing or sql.value is None:
        return missing and sql.value is None
    rounding = abs(sql.value) * _FLOAT32 if rounded and isinstance(sql.value, float) else 0.0
    return same(sql.value, value, sql.slack + rounding)


def agrees(answer: SqlAnswer, name: str, state: str, value: Value | None) -> bool | None:
    """Whether a served feature is what SQL says, its state included; None: SQL cannot tell."""
    sql = answer.features[name]
    if not math.isfinite(sql.slack) or (answer.vague and (sql.state != state or sql.state != "PRESENT")):
        return None
    return sql.state == state and same(sql.value, value, sql.slack)


def same(expected: Value | None, value: Value | None, slack: float) -> bool:
    """Whether two values are the same, or two numbers lie within the slack."""
    if isinstance(expected, float) and isinstance(value, float | int):
        return abs(expected - value) <= slack
    return expected == value
