"""What a better loss does not excuse: segments, calibration, requests that were not answered, inputs that are missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tidemill.gate.rows import PairedLosses
from tidemill.gate.rule import Rule
from tidemill.gate.wealth import log_wealth, needed
from tidemill.retrainings import GateFinding

Floats = npt.NDArray[np.float64]

BINS = 10
FEWEST = 30  # rows of a segment, below which nothing is said of it
MOST_SEGMENTS = 50  # values of a field, the most frequent
_NOISE = 3.0  # standard errors that a calibration may be off by chance


def segments(pairs: PairedLosses, rule: Rule) -> Iterator[GateFinding]:
    """A finding against the challenger for each value of a field on which it is worse, at the budget shared by all of them; and one for each field of
    which it is better on a single value and worse on all others together."""
    values = [(field, name, places) for field, texts in pairs.segments.items() for name, places in _by_value(texts)]
    for field, name, places in values:
        gains = pairs.gains[places]
        if log_wealth(-gains) >= needed(rule.budget / len(values)):
            mean = float(gains.mean())
            yield _segment(f"{field}={name}", pairs, places, f"worse on {field}={name}: loses {-mean:.4g} more on {len(places):,} rows")
    for field in pairs.segments:
        yield from _single(pairs, field, [(name, places) for of, name, places in values if of == field], rule)


def _single(pairs: PairedLosses, field: str, values: Sequence[tuple[str, npt.NDArray[np.int64]]], rule: Rule) -> Iterator[GateFinding]:
    if len(values) < 2:
        return
    best, places = max(values, key=lambda value: float(pairs.gains[value[1]].sum()))
    rest = np.setdiff1d(np.arange(len(pairs.champion)), places)
    if log_wealth(-pairs.gains[rest]) >= needed(rule.budget):
        yield _segment(f"{field}!={best}", pairs, rest, f"better on {field}={best} alone: on the {len(rest):,} other rows it loses more")


def _segment(name: str, pairs: PairedLosses, places: npt.NDArray[np.int64], said: str) -> GateFinding:
    lost = float(pairs.champion[places].mean()), float(pairs.challenger[places].mean())
    return GateFinding(f"segment {name}", "against", said, *lost, rows=len(places))


def _by_value(texts: Sequence[str]) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    names, places, counts = np.unique(np.array(texts, dtype=str), return_inverse=True, return_counts=True)
    for place in np.argsort(-counts, kind="stable")[:MOST_SEGMENTS]:
        if counts[place] >= FEWEST:
            yield str(names[place]), np.flatnonzero(places == place)


def calibration(pairs: PairedLosses, rule: Rule) -> GateFinding | None:
    """How far the probabilities of both lie from the frequencies, in ten bins of equal size. None where the answers are no probabilities."""
    if len(pairs.outcomes) < BINS:
        return None
    one, other = (calibration_error(pairs.outcomes, outputs) for outputs in (pairs.champion_outputs, pairs.challenger_outputs))
    rate = float((pairs.outcomes > 0).mean())
    chance = _NOISE * math.sqrt(rate * (1 - rate) / len(pairs.outcomes))
    worse = other - one > rule.apart + chance
    said = f"probabilities lie {other:.3f} from frequencies, the champion's {one:.3f}; {rule.apart + chance:.3f} more are allowed"
    return GateFinding("calibration", "against" if worse else "for", said, one, other, rows=len(pairs.outcomes))


def calibration_error(outcomes: Floats, outputs: Floats) -> float:
    """The mean distance of predicted and actual frequency over ten bins with as many rows each. Infinite with an output that is no number."""
    if not np.isfinite(outputs).all():
        return math.inf
    true = (outcomes > 0).astype(np.float64)
    bins = np.array_split(np.argsort(outputs, kind="stable"), BINS)
    return float(sum(abs(outputs[rows].mean() - true[rows].mean()) * len(rows) for rows in bins) / len(outcomes))


def answers(asked: int, answered: int, rule: Rule) -> GateFinding:
    """Whether the challenger answered what it was asked. One that fails, or takes too long, leaves requests out."""
    share = answered / asked if asked else 0.0
    if asked < rule.least:
        return GateFinding(
            "answers", "open", f"answered {answered:,} of {asked:,} requests; judged from {rule.least:,} on", challenger=share, rows=asked
        )
    good = share >= rule.answered
    said = f"answered {answered:,} of {asked:,} requests, {share:.1%}; {rule.answered:.0%} are asked for"
    return GateFinding("answers", "for" if good else "against", said, challenger=share, rows=asked)


def skew(
    trained: Mapping[str, float], now: Mapping[str, float], rows: int, rule: Rule, champions: Mapping[str, float] | None = None
) -> Iterator[GateFinding]:
    """Inputs that are missing now far more often than in the challenger's training: it is served what it was not trained on. All by input. Where the champion is
    served the same (`champions`: its training), this speaks for neither: their losses decide."""
    for name, share in now.items():
        before, champions_before = trained.get(name, share), (champions or {}).get(name, share)
        if rows >= rule.least and _is_far(share, before, rows, rule) and not _is_far(share, champions_before, rows, rule):
            said = f"input {name} is missing in {share:.0%} of the requests, in {before:.0%} of its training"
            yield GateFinding(f"skew {name}", "against", said, before, share, rows=rows)


def _is_far(share: float, before: float, rows: int, rule: Rule) -> bool:
    """Whether more is missing than before, by what is allowed and what chance does."""
    chance = _NOISE * math.sqrt(max(before * (1 - before), 1 / max(rows, 1)) / max(rows, 1))
    return share > before + rule.missing + chance
