"""Slots: the numbers of a tile that an aggregation asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["n", "sum", "m2", "min", "max", "last_time", "last"]


@dataclass(frozen=True)
class Slot:
    """One number of a tile: its kind and the column it belongs to (None: every event, null or not)."""

    kind: Kind
    column: str | None
