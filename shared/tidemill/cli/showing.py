"""Entities on the terminal: counter-examples of the audit, and numbers and times as `tidemill explain` shows them."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidemill.declarations.windows import Tile
from tidemill.proof.counterexample import Counterexample, ShownStep
from tidemill.timestamps import rfc3339


def number(value: Any) -> str:
    """A value as a person reads it; "-" where there is none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return "null" if math.isnan(value) else repr(value)
    return str(value)


def moment(time_ms: int | None) -> str:
    """A time, "-" where there is none."""
    return "-" if time_ms is None else rfc3339(time_ms)


def print_counterexample(console: Console, example: Counterexample) -> None:
    """The rows of an entity one by one, then where the store differs."""
    title = f"{example.view}[{example.partition}] {example.entity}: rows below the fence {example.fence}"
    steps = Table("offset", "time", "event", "values", "fate", "after it", title=Text(title))
    if hidden := example.rows - len(example.steps):
        steps.add_row("...", f"{hidden:,} rows before")
    for step in example.steps:
        steps.add_row(*(Text(text) for text in _cells(step)))
    console.print(steps)
    differing = Table("where", "what", "stored", "expected", title=Text("where the online store differs"))
    for item in example.differences:
        differing.add_row(*(Text(text) for text in (place(item.tile), item.slot, number(item.stored), number(item.expected))))
    console.print(differing)
    if not any(step.stored for step in example.steps):
        console.print("the stored value is not the value after any of these rows")


def _cells(step: ShownStep) -> tuple[str, ...]:
    values = ", ".join(f"{name} {number(value)}" for name, value in step.values.items())
    after = ", ".join(f"{name} {number(value)}" for name, value in step.features.items())
    return str(step.offset), moment(step.time_ms), step.id or "-", values, step.fate, after + ("  <- what is stored" if step.stored else "")


def place(tile: Tile | None) -> str:
    """Which tile, in words."""
    return "entity" if tile is None else tile.text
