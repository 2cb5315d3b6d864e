"""Alarms where there is little to judge by: windows of few rows, small holdouts, rare outcomes, texts of which most are rare.

python -m benchmarks.drift_few
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import numpy.typing as npt
from benchmarks.drift import BUDGET, LAWS, Law

from tidemill.stats.calibration import calibrated
from tidemill.stats.histograms import count, held_out_reference
from tidemill.stats.roc import auc_with_error
from tidemill.streams.alert_board import UNSEEN
from tidemill_drift.compare import Finding, Share, compare_distribution, compare_missing
from tidemill_drift.judging import few_of_each, few_rows
from tidemill_drift.monitor import ResultRow
from tidemill_drift.performance import HeldAuc, compare_auc, compare_calibration

FEATURES, MODELS, TEXTS, FITTED = 50, 3, 5_000, 4
"""Of each model; in the project; of a category; rows that were fitted for each row held out."""
HOLDOUTS, ROWS, POSITIVES = (75, 300, 2_000), (2, 75, 375, 2_000), (2, 10, 20, 200)
_TEXT = [f"t{i}" for i in range(TEXTS)]

Floats = npt.NDArray[np.float64]


def _zipf(random: np.random.Generator, size: int, shift: float) -> Floats:
    shares = np.cumsum(1 / np.arange(1.0, TEXTS + 1))
    return np.searchsorted(shares / shares[-1], random.random(size) ** (1 - shift)).clip(0, TEXTS - 1).astype(np.float64)


FEW_LAWS: dict[str, Law] = {"normal": LAWS["normal"], "lognormal": LAWS["lognormal"], f"{TEXTS:,} texts": _zipf}


def level() -> float:
    """Of each comparison: every feature of every model has three, and each model five more."""
    return BUDGET / (MODELS * (3 * FEATURES + 5))


def column(law: Law, random: np.random.Generator, held: int, rows: int, shift: float) -> Iterator[Finding]:
    """The comparisons of one column; a text that was not there when the model was fitted is unseen."""
    texts = law is _zipf
    fitted, now = law(random, held * (FITTED + 1), 0.0), law(random, rows, shift)
    before = held_out_reference(fitted, held, TEXTS if texts else None)
    new = ~np.isin(now, fitted) if texts else np.zeros(rows, dtype=bool)
    window = count(before.edges, now[~new])
    if texts:
        window = msgspec.structs.replace(window, unseen=int(new.sum()), rows=rows)
        found = compare_missing("x", Share(int(str(before.unseen)), held), Share(int(new.sum()), rows), level(), test=UNSEEN)
        yield from [found] if found else []
    found = compare_distribution("feature_drift", "x", before, window, level(), _TEXT if texts else ())
    yield from [found] if found else []


def inputs_told(name: str, held: int, rows: int, windows: int, shift: float = 0.0, seed: int = 3) -> float:
    """The share of windows in which any of all columns of all models is told; with a shift, in which one column is."""
    if few_rows(range(rows)):
        return math.nan
    random, law = np.random.default_rng([seed, held, rows, *name.encode()]), FEW_LAWS[name]
    columns = 1 if shift else FEATURES * MODELS
    told = [any(one.drifted for _ in range(columns) for one in column(law, random, held, rows, shift)) for _ in range(windows)]
    return sum(told) / windows


def outcomes(random: np.random.Generator, rows: int, rate: float, noise: float = 0.0) -> tuple[Floats, Floats]:
    """Outcomes and scores of balanced class weights, off by design. `noise`: what the scores have become worse by."""
    signal = random.normal(size=rows) * 1.5
    came = random.random(rows) < 1 / (1 + np.exp(-signal - math.log(rate / (1 - rate))))
    return came.astype(np.float64), 1 / (1 + np.exp(-signal * (1 - noise) - noise * 1.5 * random.normal(size=rows)))


Change = Callable[[np.random.Generator, int, float], tuple[Floats, Floats]]
CHANGES: dict[str, Change] = {
    "none": outcomes,
    "three times as often": lambda random, rows, rate: outcomes(random, rows, min(3 * rate, 0.9)),
    "worse scores": lambda random, rows, rate: outcomes(random, rows, rate, 0.9),
}


def outcomes_told(change: str, held: int, rows: int, positives: int, windows: int, models: int = 1, seed: int = 4) -> float:
    """The share of windows in which calibration or ranking of any model is told. `positives`: how many are expected in the window."""
    if few_rows(range(rows)):
        return math.nan
    random, rate = np.random.default_rng([seed, held, rows, positives]), positives / rows
    return sum(any(_told(random, change, held, rows, rate) for _ in range(models)) for _ in range(windows)) / windows


def _told(random: np.random.Generator, change: str, held: int, rows: int, rate: float) -> bool:
    labels, scores = outcomes(random, held, rate)
    auc, error = auc_with_error(labels, scores)
    now, given = CHANGES[change](random, rows, rate)
    if compare_calibration(now, given, calibrated(labels, scores), level()).drifted:
        return True
    if math.isnan(auc) or few_of_each([ResultRow(0.5, one) for one in now]):
        return False
    found = compare_auc(now, given, HeldAuc(auc, error, int(labels.sum()), int(held - labels.sum())), level())
    return found is not None and found.drifted


def main() -> None:
    """Prints the tables of the service's README."""
    print(
        f"| law ({MODELS} models of {FEATURES} inputs) | held out | rows | false alarms | found at 0.5 | found at 1 |\n|---|---|---|---|---|---|"
    )
    for name in FEW_LAWS:
        for held in HOLDOUTS:
            for rows in ROWS:
                small, large = (0.2, 0.5) if "texts" in name else (0.5, 1.0)
                told = [inputs_told(name, held, rows, 40), *(inputs_told(name, held, rows, 40, shift) for shift in (small, large))]
                print(f"| {name} | {held:,} | {rows:,} | {' | '.join(map(_cell, told))} |", flush=True)
    print(f"\n| held out | rows | of them positive | {' | '.join(CHANGES)} |\n|---|---|---|{'---|' * len(CHANGES)}")
    for held in HOLDOUTS:
        for rows in ROWS:
            for positives in POSITIVES:
                if 2 * positives <= rows:
                    told = [outcomes_told(change, held, rows, positives, 200, MODELS if change == "none" else 1) for change in CHANGES]
                    print(f"| {held:,} | {rows:,} | {positives:,} | {' | '.join(map(_cell, told))} |", flush=True)


def _cell(share: float) -> str:
    return "waits" if math.isnan(share) else f"{share:.1%}".replace(".0%", "%")


if __name__ == "__main__":
    main()
