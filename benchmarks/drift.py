"""How often drift detection raises a false alarm, and what it finds: stationary and shifted windows of known laws.

python -m benchmarks.drift
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.stats.histograms import Histogram, count, reference
from tidemill_drift.compare import Finding, Share, compare_distribution, compare_missing

COLUMNS, WINDOWS = 40, 100
BUDGET = 0.01
REFERENCES, SIZES = (1_000, 5_000, 50_000), (200, 1_000, 5_000)
SHIFTS = (0.1, 0.2, 0.5)
_MISSING = 0.05

Floats = npt.NDArray[np.float64]
Law = Callable[[np.random.Generator, int, float], Floats]


class Alarms(NamedTuple):
    """Shares of windows in which evidence alone, and evidence with size, found any of the columns."""

    evidence: float
    alerts: float


def _categories(values: int, power: float) -> Law:
    weights = np.arange(1.0, values + 1) ** -power
    shares = np.cumsum(weights / weights.sum())[:-1]
    return lambda random, size, shift: np.searchsorted(shares, random.random(size) ** (1 - shift)).astype(np.float64)


LAWS: dict[str, Law] = {
    "normal": lambda random, size, shift: random.normal(shift, size=size),
    "lognormal": lambda random, size, shift: np.exp(1.5 * random.normal(shift, size=size)),
    "5 categories": _categories(5, 0),
    "50 Zipf": _categories(50, 1),
}
"""By name: draws so many values; `shift` is in standard deviations (of the logarithm; for categories: their share moved towards later ones)."""


def draw(law: str, random: np.random.Generator, size: int, shift: float = 0.0) -> Floats:
    """Values of a law, one in twenty missing."""
    return np.where(random.random(size) < _MISSING, np.nan, LAWS[law](random, size, shift))


def ruler(law: str, random: np.random.Generator, size: int) -> Histogram:
    """The reference of one column."""
    return reference(draw(law, random, size), category="categ" in law or "Zipf" in law)


def findings(before: Histogram, values: Floats, level: float) -> list[Finding]:
    """What is compared of one column."""
    now = count(before.edges, values)
    found = (
        compare_distribution("feature_drift", "x", before, now, level),
        compare_missing("x", Share(before.missing, before.rows), Share(now.missing, now.rows), level),
    )
    return [finding for finding in found if finding is not None]


def false_alarms(law: str, rows: int, size: int, columns: int = COLUMNS, windows: int = WINDOWS, seed: int = 1) -> Alarms:
    """Stationary windows of independent columns, each with a reference of its own per window, so that its error counts too."""
    random = np.random.default_rng([seed, rows, size, *law.encode()])
    level = BUDGET / (2 * columns + 3)
    evidence = alerts = 0
    for _ in range(windows):
        found = [f for _ in range(columns) for f in findings(ruler(law, random, rows), draw(law, random, size), level)]
        evidence += any(f.statistic > f.threshold for f in found)
        alerts += any(f.drifted for f in found)
    return Alarms(evidence / windows, alerts / windows)


def power(law: str, rows: int, size: int, shift: float, columns: int = COLUMNS, windows: int = WINDOWS, seed: int = 2) -> Alarms:
    """Shares of windows in which one shifted column among `columns` is found."""
    random = np.random.default_rng([seed, rows, size, *law.encode()])
    level = BUDGET / (2 * columns + 3)
    before = ruler(law, random, rows)
    found = [findings(before, draw(law, random, size, shift), level)[0] for _ in range(windows)]
    return Alarms(sum(f.statistic > f.threshold for f in found) / windows, sum(f.drifted for f in found) / windows)


def allowed(windows: int = WINDOWS) -> float:
    """The budget and two standard errors of a share of so many windows."""
    return BUDGET + 2 * math.sqrt(BUDGET * (1 - BUDGET) / windows)


def main() -> None:
    """Prints the table of the service's README."""
    print(f"{COLUMNS} columns x {WINDOWS} windows, budget {BUDGET}; alerts (evidence alone). Shifts in standard deviations.\n")
    print("| law | reference | window | false alarms |" + "".join(f" found at {shift} |" for shift in SHIFTS))
    print("|---|---|---|---|" + "---|" * len(SHIFTS))
    for law in LAWS:
        for rows in REFERENCES:
            for size in SIZES:
                windows = 20 if rows == REFERENCES[-1] else WINDOWS
                shown = [false_alarms(law, rows, size, windows=windows), *(power(law, rows, size, shift) for shift in SHIFTS)]
                cells = " | ".join(f"{s.alerts:.0%} ({s.evidence:.0%})" for s in shown)
                print(f"| {law} | {rows:,} | {size:,} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
