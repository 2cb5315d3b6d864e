"""Outcomes that stop coming are told, a few times until the horizon. Pure, but for what it remembers."""

from __future__ import annotations

from collections.abc import Hashable

TIMES = 14
"""How often within a horizon silence is told, at most: daily with the default."""


class Silence:
    """How long nothing new has come for a step."""

    def __init__(self) -> None:
        self._step: Hashable = None
        self._rows = 0
        self._grown = self._told = 0.0

    def since(self, step: Hashable, rows: int, now_seconds: float, horizon_seconds: float) -> float:
        """For how many seconds the rows of a step have not grown, when that is to be told now; else 0. `now_seconds`: of a clock that never goes back."""
        if step != self._step or rows > self._rows:
            self._step, self._rows, self._grown, self._told = step, rows, now_seconds, now_seconds
        if now_seconds - self._told < horizon_seconds / TIMES:
            return 0.0
        self._told = now_seconds
        return now_seconds - self._grown
