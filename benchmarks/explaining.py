"""What an explanation takes: `python -m benchmarks.explaining`. 200 boosted trees of 31 leaves on 38 inputs, beside the model's own answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from benchmarks.figures import Figure
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tidemill.attribution.explainer import Explainer
from tidemill.models.artifact import ModelInput
from tidemill.models.engine import Engine
from tidemill.training.conversion import to_onnx
from tidemill.training.explained import recipe_of

INPUTS, TREES, ROWS = 38, 200, 10_000
ASKED, QUICK_ASKED = 400, 40


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Rows with missing values, and labels in which inputs act together."""
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(ROWS, INPUTS)).astype(np.float32)
    labels = rows[:, :10].sum(axis=1) + rows[:, 0] * rows[:, 1] + draw.normal(size=ROWS) > 0
    rows[draw.random(rows.shape) < 0.05] = np.nan
    return rows, labels.astype(np.int64)


def milliseconds(ask: Callable[[np.ndarray], object], rows: np.ndarray) -> tuple[float, float]:
    """Median and 99th percentile of asking for one row after the other."""
    taken = []
    for row in rows:
        begun = time.perf_counter()
        ask(row)
        taken.append(1_000 * (time.perf_counter() - begun))
    return float(np.median(taken)), float(np.percentile(taken, 99))


def figures(*, quick: bool) -> Iterator[Figure]:
    """Trees, a sum of terms, and a network that is sampled."""
    rows, labels = examples()
    asked = rows[: QUICK_ASKED if quick else ASKED]
    scaled = [SimpleImputer(), StandardScaler()]
    for name, pipeline in {
        f"explanation of {TREES} boosted trees of 31 leaves, {INPUTS} inputs": HistGradientBoostingClassifier(
            max_iter=TREES, random_state=0
        ),
        f"explanation of a logistic regression, {INPUTS} inputs": make_pipeline(*scaled, LogisticRegression()),
        f"explanation of a network of 16 units, {INPUTS} inputs, by sampling": make_pipeline(
            *scaled, MLPClassifier((16,), early_stopping=True, random_state=0)
        ),
    }.items():
        onnx = to_onnx(pipeline.fit(rows, labels), INPUTS, probability=True)
        engine = Engine.of_onnx("benchmark", onnx, INPUTS, "probability")
        inputs = [ModelInput(f"i{i}", "number") for i in range(INPUTS)]
        explainer = Explainer([item.name for item in inputs], "probability", engine, recipe_of(onnx, inputs, "probability", engine, rows))
        median, slow = milliseconds(explainer.explain, asked)
        alone, _ = milliseconds(engine.predict, asked)
        yield Figure(name, median, "ms", {"p99": slow, "the answer alone": alone})


if __name__ == "__main__":
    for figure in figures(quick=False):
        print(figure)
