"""Every pipeline of the zoo is trained, stored and served as it predicts: for known, unknown and missing inputs.

The oracle is the fitted pipeline on raw rows, written here, beside a session of onnxruntime; it shares no code with the parity of training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from tests.training.zoo import CLASSIFIERS, MODEL, NUMBERS, REGRESSORS
from threadpoolctl import threadpool_limits

from tidemill.kernel.served import Served
from tidemill.models.artifact import inputs_of, load_artifact, save_artifact
from tidemill.models.engine import load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.training.dataset import TrainingSet
from tidemill.training.version import Version, make_version

pytestmark = pytest.mark.filterwarnings("ignore")  # of scikit-learn: few rows, few iterations, categories never seen
TEXTS = ["card", "cash", "coin"]
Row = dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait by spinning make small models slow on a busy machine."""
    with threadpool_limits(1):
        yield


def raw_rows(count: int = 300) -> list[Row]:
    """What requests see: numbers of many sizes, a flag and a text; None where there is no value."""
    draw = np.random.default_rng(5)
    rows = []
    for _ in range(count):
        row: Row = {name: float(np.float32(draw.normal(10 ** (i % 4), 10 ** (i % 3)))) for i, name in enumerate(NUMBERS)}
        row |= {"member": float(draw.integers(2)), "payment": str(draw.choice(TEXTS))}
        rows.append({name: None if draw.random() < 0.08 else row[name] for name in MODEL.input_names})
    return rows


def asked_rows(rows: list[Row]) -> list[Row]:
    """Rows as they are; with each input missing; with a text that was never there; an unknown entity; nothing at all; far values."""
    some = rows[:15]
    made = [dict(row) for row in some]
    made += [row | {name: None} for name in MODEL.input_names for row in some[:3]]
    made += [row | {"payment": "shells"} for row in some]
    made += [row | {name: None for name in row if name.startswith("zones__")} for row in some]
    made += [dict.fromkeys(MODEL.input_names), *(row | {name: 50.0} for name in NUMBERS if name != "member" for row in some[:1])]
    return made


def training_set(rows: list[Row], labels: np.ndarray) -> TrainingSet:
    """The rows as training has them."""
    numbers = {text: float(i) for i, text in enumerate(TEXTS)}
    values = [[math.nan if row[name] is None else numbers[row[name]] if name == "payment" else row[name] for name in row] for row in rows]
    subjects = [f"s{i}" for i in range(len(rows))]
    return TrainingSet(np.array(values), labels, np.arange(len(rows)), subjects, inputs_of(MODEL.plan, {"payment": TEXTS}))


def truth(rows: list[Row]) -> np.ndarray:
    """What there is to learn, with noise."""
    draw = np.random.default_rng(6)
    bonus = {"card": 0.0, "cash": 2.0, "coin": -2.0, None: 1.0}
    return np.array([(row[NUMBERS[0]] or 0.0) + bonus[row["payment"]] + draw.normal(0, 0.3) for row in rows])


def answers(version: Version, rows: list[Row], *, by_name: bool, classes: bool) -> np.ndarray:
    """The oracle: the fitted pipeline on the raw rows."""
    pipeline = version.fitted.pipeline
    table = pd.DataFrame({name: pd.Series([np.nan if row[name] is None else row[name] for row in rows], dtype=object) for name in rows[0]})
    table[NUMBERS] = table[NUMBERS].astype("float32")
    if not by_name:
        table["payment"] = table["payment"].map({text: float(i) for i, text in enumerate(TEXTS)})
    given = table if by_name else table.to_numpy(dtype=np.float32)
    return np.asarray(pipeline.predict_proba(given)[:, 1] if classes else pipeline.predict(given), dtype=np.float64)


def vectors(version: Version, rows: list[Row]) -> np.ndarray:
    """The inputs as serving makes them, from features and from what comes with the request."""
    inputs = ModelInputs(MODEL, version.artifact.manifest.categories)
    made = []
    for row in rows:
        features = [math.nan if row[name] is None else row[name] for name in MODEL.input_names[:9]]
        given = {
            "zone": "a", "driver_id": 1, "distance": row["distance"], "payment": row["payment"],
            "member": None if row["member"] is None else row["member"] > 0,
        }  # fmt: skip
        made.append(vector_of(inputs.row([Served(features[:8], [], 0), Served([0.0, features[8]], [], 0)], given)))
    return np.array(made)


def served(onnx: bytes, matrix: np.ndarray) -> np.ndarray:
    """What onnxruntime gives for each row, one row at a time."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    name = session.get_outputs()[-1].name
    return np.array([session.run([name], {"features": row[None]})[0][0, -1] for row in matrix], np.float64)


ROWS = raw_rows()
TRUTH = truth(ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_of_the_zoo(name: str, tmp_path: Path) -> None:
    """The probability that is served is that of the fitted pipeline, within 1e-4."""
    data = training_set(ROWS, (np.median(TRUTH) < TRUTH).astype(np.float64))
    version = make_version(dataclasses.replace(MODEL, pipeline=CLASSIFIERS[name]), data, 0, lambda _: None)
    check(version, tmp_path, by_name="by name" in name or "by type" in name, classes=True, allowed=1e-4)
    assert version.fitted.metrics["auc"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("unit", [1.0, 86_400.0])
def test_a_regressor_of_the_zoo(name: str, unit: float, tmp_path: Path) -> None:
    """The value that is served is that of the fitted pipeline, within 1e-4 of the spread or of the value, in days and in seconds."""
    labels = np.exp(TRUTH / 4 + 1) * unit
    version = make_version(dataclasses.replace(MODEL, pipeline=REGRESSORS[name]), training_set(ROWS, labels), 0, lambda _: None)
    check(version, tmp_path, by_name="by name" in name, classes=False, allowed=1e-4 * float(np.std(labels)))


def check(version: Version, folder: Path, *, by_name: bool, classes: bool, allowed: float) -> None:
    """Compares what is served, from the stored file, with the oracle; and the engine of inference with both."""
    stored = load_artifact(str(folder), *save_artifact(str(folder), *version.artifact))
    rows = asked_rows(ROWS)
    expected = answers(version, rows, by_name=by_name, classes=classes)
    matrix = vectors(version, rows)
    found = served(stored.onnx, matrix)
    apart = np.abs(found - expected) / np.maximum(allowed, 1e-4 * np.abs(expected))
    assert np.isfinite(expected).all()
    assert apart.max() <= 1, (rows[int(apart.argmax())], found[apart.argmax()], expected[apart.argmax()])
    assert np.ptp(expected) > 0
    engine = load_engine(stored)
    assert [engine.predict(row) for row in matrix[:5]] == found[:5].tolist()


def test_the_zoo_is_large() -> None:
    """Some seventy pipelines, each of another kind."""
    assert len(CLASSIFIERS) + len(REGRESSORS) >= 70
