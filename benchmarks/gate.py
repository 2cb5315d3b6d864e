"""How often the gate promotes a challenger that is not better, looking after every outcome, and how many outcomes a better one needs.

python -m benchmarks.gate
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.gate.losses import of_probabilities, of_values
from tidemill.gate.wealth import needed, wealth_path
from tidemill.retrainings import LossName

Floats = npt.NDArray[np.float64]
Random = np.random.Generator

NOISE = 1.4  # of the champion's score
PER_ENTITY = 10
BUDGET, STREAMS, ROWS = 0.05, 1_000, 10_000
BETTER, MOST = (0.01, 0.03, 0.10), 100_000
POWER_STREAMS = 50
_SAMPLE = 400_000  # rows by which a factor is found


class Answers(NamedTuple):
    """Outcomes, and what both said, rows of one entity side by side."""

    outcomes: Floats
    champion: Floats
    challenger: Floats


Law = Callable[[Random, int, float], Answers]
"""Rows of a law. The challenger's score is as noisy as the champion's, times a factor: 1 is no difference."""


def scores(draw: Random, truth: Floats, factor: float, rows: int) -> tuple[Floats, Floats]:
    """Two looks at the same truth."""
    return truth + draw.normal(0, NOISE, rows), truth + draw.normal(0, NOISE * factor, rows)


def sigmoid(scores: Floats) -> Floats:
    """A probability from a score."""
    found: Floats = 1 / (1 + np.exp(-scores))
    return found


def binary(center: float) -> Law:
    """A condition that is true about as often as the sigmoid of a centre."""

    def law(draw: Random, rows: int, factor: float) -> Answers:
        truth = draw.normal(center, 1.2, rows)
        one, other = scores(draw, truth, factor, rows)
        return Answers((draw.random(rows) < sigmoid(truth)).astype(np.float64), sigmoid(one), sigmoid(other))

    return law


def heavy(draw: Random, rows: int, factor: float) -> Answers:
    """A value whose noise has no variance."""
    truth = draw.normal(0, 1.2, rows)
    one, other = scores(draw, truth, factor, rows)
    return Answers(truth + draw.standard_t(1.8, rows), one, other)


def by_entity(draw: Random, rows: int, factor: float) -> Answers:
    """As `binary`, but both models err alike on all rows of an entity, whose outcome is the same."""
    entities = -(-rows // PER_ENTITY)
    found = binary(0.0)(draw, entities, factor)
    return Answers(*(np.repeat(column, PER_ENTITY)[:rows] for column in found))


LAWS: dict[str, Law] = {
    "true half the time": binary(0.0),
    "true 1 % of the time": binary(-5.2),
    "a value, heavy tails": heavy,
    "ten rows an entity": by_entity,
}


def loss_of(name: str) -> LossName:
    """What a law is judged by."""
    return "absolute" if "value" in name else "brier"


def losses(name: str, answers: Answers, loss: LossName | None = None) -> tuple[Floats, Floats]:
    """What both lost. Errors of values are clipped at ten."""
    kind = loss or loss_of(name)
    if kind in ("absolute", "squared"):
        return of_values(kind, answers.outcomes, answers.champion, 10.0), of_values(kind, answers.outcomes, answers.challenger, 10.0)
    return of_probabilities(kind, answers.outcomes, answers.champion), of_probabilities(kind, answers.outcomes, answers.challenger)


def gains(name: str, draw: Random, rows: int, factor: float, loss: LossName | None = None) -> Floats:
    """By how much the challenger loses less, row by row."""
    champion, challenger = losses(name, LAWS[name](draw, rows, factor), loss)
    return champion - challenger


def decided_at(gains: Floats, budget: float, least: int) -> int | None:
    """After how many outcomes somebody who looks after each promotes; None: never."""
    shown = np.flatnonzero(wealth_path(gains)[least - 1 :] >= needed(budget))
    return int(shown[0]) + least if len(shown) else None


def false_promotions(name: str, streams: int, rows: int, *, once: bool = False, budget: float = BUDGET, seed: int = 0) -> float:
    """The share of streams without a difference in which the challenger is promoted. `once`: an entity counts once."""
    draw, step = np.random.default_rng(seed), PER_ENTITY if once else 1
    found = [decided_at(gains(name, draw, rows, 1.0)[::step], budget, 1) for _ in range(streams)]
    return sum(at is not None for at in found) / streams


def factor_for(name: str, better: float, seed: int = 1) -> float | None:
    """How noisy a challenger is whose log loss (of a value: whose absolute error) is so much better; None when no challenger can be so much
    better, since the truth itself is not."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        champion, challenger = losses(
            name, LAWS[name](np.random.default_rng(seed), _SAMPLE, middle), "absolute" if "value" in name else "log_loss"
        )
        low, high = (middle, high) if 1 - challenger.mean() / champion.mean() >= better else (low, middle)
    return low or None


def outcomes_needed(name: str, factor: float, loss: LossName | None, streams: int = POWER_STREAMS, rows: int = MOST) -> tuple[float, float]:
    """The median over streams of the outcomes after which a better challenger is promoted (infinite: not within `rows`), and the share promoted."""
    draw = np.random.default_rng(2)
    found = [decided_at(gains(name, draw, rows, factor, loss), BUDGET, 1) for _ in range(streams)]
    return float(np.median([np.inf if at is None else at for at in found])), sum(at is not None for at in found) / streams


def main() -> None:
    """Print both tables."""
    print("| no difference | promoted falsely |\n|---|---|")
    for name in LAWS:
        print(f"| {name} | {false_promotions(name, STREAMS, ROWS):.1%} |", flush=True)
    once = false_promotions("ten rows an entity", STREAMS, ROWS * PER_ENTITY // 4, once=True)
    print(f"| ten rows an entity, each entity once | {once:.1%} |\n")
    print("| better by | law | judged by | outcomes, median | promoted within 100,000 |\n|---|---|---|---|---|")
    for name in LAWS:
        for better in BETTER if "entity" not in name else ():
            factor = factor_for(name, better)
            if factor is None:
                continue
            for loss in (loss_of(name),) if "value" in name else (loss_of(name), "log_loss"):
                median, share = outcomes_needed(name, factor, loss)
                print(
                    f"| {better:.0%} | {name} | {loss} | {f'{median:,.0f}' if np.isfinite(median) else f'over {MOST:,}'} | {share:.0%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
