"""Pipelines of three classes are trained, stored and served as they predict: every probability, and the class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.training.test_zoo import ROWS, TEXTS, TRUTH, Row, asked_rows, training_set, vectors
from tests.training.zoo import MODEL, NUMBERS, SEVERAL
from threadpoolctl import threadpool_limits

from tidemill.models.answers import chosen
from tidemill.models.artifact import load_artifact, save_artifact
from tidemill.models.engine import load_engine
from tidemill.training.version import Version, make_version

pytestmark = pytest.mark.filterwarnings("ignore")  # of scikit-learn: few rows, few iterations, categories never seen
CLASSES = ["cancelled", "late", "on time"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait by spinning make small models slow on a busy machine."""
    with threadpool_limits(1):
        yield


def three() -> Any:
    """The rows of the zoo with one of three texts as the outcome, numbered in the order in which they were met."""
    places = np.digitize(TRUTH, np.quantile(TRUTH, [0.3, 0.6]))
    return dataclasses.replace(training_set(ROWS, (places + 1) % 3.0), texts=("on time", "cancelled", "late"))


def oracle(version: Version, rows: list[Row], *, by_name: bool) -> np.ndarray:
    """The fitted pipeline on the raw rows."""
    table = pd.DataFrame({name: pd.Series([np.nan if row[name] is None else row[name] for row in rows], dtype=object) for name in rows[0]})
    table[NUMBERS] = table[NUMBERS].astype("float32")
    if not by_name:
        table["payment"] = table["payment"].map({text: float(i) for i, text in enumerate(TEXTS)})
    given = table if by_name else table.to_numpy(dtype=np.float32)
    return np.asarray(version.fitted.pipeline.predict_proba(given), dtype=np.float64)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_classifier_of_three_classes(name: str, tmp_path: Path) -> None:
    """Each probability that is served, from the stored file, is that of the fitted pipeline, within 1e-4; so is the class, but for ties."""
    version = make_version(dataclasses.replace(MODEL, pipeline=SEVERAL[name]), three(), 0, lambda _: None)
    stored = load_artifact(str(tmp_path), *save_artifact(str(tmp_path), *version.artifact))
    rows, engine = asked_rows(ROWS), load_engine(stored)
    expected = oracle(version, rows, by_name="by name" in name)
    answers = [engine.answer(row) for row in vectors(version, rows)]
    found = np.array([list(answer.probabilities.values()) for answer in answers])
    assert stored.manifest.output == "probabilities"
    assert {tuple(answer.probabilities) for answer in answers} == {tuple(CLASSES)}
    assert np.abs(found - expected).max() <= 1e-4
    assert np.ptp(expected, axis=0).min() > 0
    clear = np.diff(np.sort(expected, axis=1)[:, -2:])[:, 0] > 2e-4
    named = np.array([chosen(answer.probabilities) for answer in answers])
    assert (named == np.array(CLASSES)[expected.argmax(axis=1)])[clear].all()
    assert version.fitted.metrics["auc_ovr"] > 0.5
