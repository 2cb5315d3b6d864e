"""A learner beside a model that stays as it was trained, on streams that come with river: what both lose, and what learning costs.

python -m benchmarks.online
"""

from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from river import compose, datasets, forest, linear_model, optim, preprocessing, tree

from tidemill.models.incremental import Incremental, Named, NamedColumn
from tidemill.models.learned import Learned, Learner, Lesson, Limits

EVERY, TRAINED = 200, 400
Row = tuple[Named, float]


class Case(NamedTuple):
    """A stream, and a pipeline. `classes`: 2 of a condition, 0 of a value."""

    name: str
    rows: Callable[[], Iterator[Row]]
    pipeline_name: str
    pipeline: Callable[[], Any]
    classes: int = 2


class Measured(NamedTuple):
    """Mean losses after the training (Brier score, of a value absolute error), and what learning takes."""

    outcomes: int
    frozen: float
    snapshots: float
    learner: float
    learn_us: float
    snapshot_ms: float
    snapshot_bytes: int


def of_river(made: Callable[[], Any]) -> Callable[[], Iterator[Row]]:
    """The rows of a data set: numbers as numbers, all else as texts."""

    def rows() -> Iterator[Row]:
        for row, outcome in made():
            yield {name: value if isinstance(value, str) else float(value) for name, value in row.items()}, float(outcome)

    return rows


def turned() -> Iterator[Row]:
    """A world that turns over in its midst: what was true is false."""
    stream = datasets.synth.SEA(variant=0, noise=0.1, seed=1)
    for place, (row, outcome) in enumerate(stream.take(4_000)):
        yield {str(name): float(value) for name, value in row.items()}, float(outcome) if place < 2_000 else 1.0 - float(outcome)


def logistic() -> Any:
    """Numbers scaled, and a logistic regression."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.05))


def linear() -> Any:
    """Numbers scaled, and a linear regression."""
    return compose.SelectType(float) | preprocessing.StandardScaler() | linear_model.LinearRegression(optim.SGD(0.01), intercept_lr=0.3)


def adaptive() -> Any:
    """A forest whose trees are exchanged when they drift."""
    return forest.ARFClassifier(n_models=5, seed=1)


CASES = (
    Case("Phishing", of_river(datasets.Phishing), "logistic regression", logistic),
    Case("Phishing", of_river(datasets.Phishing), "adaptive forest of 5", adaptive),
    Case("Bananas", of_river(datasets.Bananas), "Hoeffding tree", tree.HoeffdingTreeClassifier),
    Case("SEA, turned over", turned, "logistic regression", logistic),
    Case("SEA, turned over", turned, "adaptive forest of 5", adaptive),
    Case("TrumpApproval (a value)", of_river(datasets.TrumpApproval), "linear regression", linear, 0),
)


def loss(case: Case, answer: list[float], label: float) -> float:
    """Brier score of a probability, absolute error of a value."""
    return (answer[-1] - label) ** 2 if case.classes else abs(answer[-1] - label)


def measured(case: Case, trained: int = TRAINED, every: int = EVERY, most: int = 10_000) -> Measured:
    """Trains on the first rows; on the others each is answered by the trained model, by the newest snapshot and by the learner, and then learned."""
    rows = list(itertools.islice(case.rows(), most))
    columns = tuple(NamedColumn(name, None if not isinstance(value, str) else ()) for name, value in rows[0][0].items())
    begun = Incremental(case.pipeline(), columns, case.classes)
    for row, label in rows[:trained]:
        begun.learn(row, label)
    frozen = pickle.dumps(begun, protocol=5)
    still, newest = pickle.loads(frozen), pickle.loads(frozen)  # noqa: S301 - our own
    learner = Learner(Learned("v1", frozen), Limits(every, 1 << 30))
    lost, learning, keeping = [], list[float](), list[float]()
    for place, (row, label) in enumerate(rows[trained:]):
        answers = [still.answer(row), newest.answer(row)]
        began = time.process_time()
        made = list(learner.take([Lesson(place, place, place, place, row, label)]))
        (keeping if made else learning).append(time.process_time() - began)
        for snapshot in made:
            newest = pickle.loads(snapshot.pipeline)  # noqa: S301 - our own
        lost.append([loss(case, answer, label) for answer in [*answers, answered(learner)]])
    frozen_lost, snapshots_lost, learner_lost = np.mean(lost, axis=0).tolist()
    size = len(learner.snapshot.pipeline)
    return Measured(
        len(lost), frozen_lost, snapshots_lost, learner_lost, float(np.mean(learning)) * 1e6, float(np.mean(keeping)) * 1e3, size
    )


def answered(learner: Learner) -> list[float]:
    """What the learner answered before it learned the newest outcome."""
    return learner.newest.answer


def main() -> None:
    """Print the table."""
    print("| stream | pipeline | outcomes | frozen | snapshots | learner | an outcome | a snapshot | its pickle |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        found = measured(case)
        print(
            f"| {case.name} | {case.pipeline_name} | {found.outcomes:,} | {found.frozen:.4f} | {found.snapshots:.4f} | {found.learner:.4f} | "
            f"{found.learn_us:,.0f} µs | {found.snapshot_ms:.1f} ms | {found.snapshot_bytes / 1000:,.1f} kB |"
        )


if __name__ == "__main__":
    main()
