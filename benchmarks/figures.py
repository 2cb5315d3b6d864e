"""One measured figure and what stands beside it, measured in the same run."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """`beside`: a peer's or a limit's value of the same unit, by name."""

    name: str
    value: float
    unit: str
    beside: dict[str, float]

    def __str__(self) -> str:
        others = "; ".join(f"{name} {_number(value)}" for name, value in self.beside.items())
        return f"{self.name}: {_number(self.value)} {self.unit}" + (f"   (beside: {others})" if others else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
