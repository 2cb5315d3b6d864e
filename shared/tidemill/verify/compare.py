"""What is served, logged or trained on, beside what SQL says."""

from __future__ import annotations

import math

from tidemill.verify.sql import Answer, Value


def agrees(answer: Answer, name: str, state: str, value: Value | None) -> bool | None:
    """Whether a served feature is what SQL says; None: SQL cannot tell."""
    sql = answer.features[name]
    if answer.vague and "PRESENT" not in (state, sql.state):
        return None
    if not math.isfinite(sql.slack) or (answer.vague and state != sql.state):
        return None
    if sql.state != state:
        return False
    return same(sql.value, value, sql.slack)


def same(expected: Value | None, value: Value | None, slack: float) -> bool:
    """Whether two values are the same, or two numbers lie within the slack."""
    if isinstance(expected, float) and isinstance(value, float | int):
        return abs(expected - value) <= slack
    return expected == value
