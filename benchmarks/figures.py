"""One measured figure and what stands beside it, measured in the same run."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Figure(NamedTuple):
    """`beside`: a peer's or a limit's value of the same unit, by name."""

    name: str
    value: float
    unit: str
    beside: dict[str, float]

    def __str__(self) -> str:
        others = "; ".join(f"{name} {_number(value)}" for name, value in self.beside.items())
        return f"{self.name}: {_number(self.value)} {self.unit}" + (f"   (beside: {others})" if others else "")


def spent(work: Callable[[], T]) -> tuple[T, float]:
    """What some work gives, and the CPU seconds that this process spent on it."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    given = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return given, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
