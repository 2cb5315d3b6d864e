"""Pipelines of river: trained in one pass in the order of time, stored, and served with the same bits; what is no such pipeline is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.online import CASES, measured
from river import compose, linear_model, naive_bayes, preprocessing, tree
from sklearn.linear_model import Ridge
from tests.demo_state import NOW_MS, saved
from tests.training.test_parity import CATEGORIES, INPUTS, MODEL, PAYMENT, examples

from tidemill import Online
from tidemill.errors import TidemillError
from tidemill.models.artifact import load_artifact
from tidemill.models.engine import load_engine
from tidemill.models.incremental import columns_of, named
from tidemill.training.dataset import TrainingSet
from tidemill.training.fitting import is_classifier_of
from tidemill.training.stages.keys import described
from tidemill.training.version import Version, make_version

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def logistic() -> Any:
    """Numbers scaled, texts as columns of their own."""
    numbers = compose.SelectType(float) | preprocessing.StandardScaler()
    return (numbers + (compose.SelectType(str) | preprocessing.OneHotEncoder())) | linear_model.LogisticRegression()


def version_of(pipeline: Callable[[], Any], data: TrainingSet | None = None) -> Version:
    """A version as training makes it."""
    model = dataclasses.replace(MODEL, pipeline=pipeline, engine="python", online=Online())
    return make_version(model, examples(200, 0.05) if data is None else data, NOW_MS, lambda _: None)


def values() -> Any:
    """A regressor."""
    return compose.SelectType(float) | tree.HoeffdingTreeRegressor()


@pytest.mark.parametrize(("pipeline", "output"), [(logistic, "probability"), (values, "value")])
def test_a_worker_answers_what_was_learned(tmp_path: Path, pipeline: Callable[[], Any], output: str) -> None:
    """Stored, loaded and asked: the bits of one pass over the rows by river itself, and the version says that it goes on learning."""
    data = examples(200, 0.05)
    version = version_of(pipeline, data)
    record = saved(str(tmp_path), version.artifact)
    artifact = load_artifact(str(tmp_path), record.artifact, record.sha256)
    manifest, learned, columns = artifact.manifest, pipeline(), columns_of(data.inputs)
    assert (manifest.output, manifest.learning is not None and manifest.learning.learned) == (output, 0)
    assert manifest.own_pipeline is not None
    assert (manifest.own_pipeline.frame, "river" in manifest.own_pipeline.packages) == (False, True)
    for row, label in zip(data.matrix, data.labels, strict=True):
        learned.learn_one(named(columns, row.tolist()), bool(label) if output == "probability" else float(label))
    asked = [named(columns, row.tolist()) for row in data.matrix]
    wanted = [learned.predict_proba_one(row)[True] if output == "probability" else learned.predict_one(row) for row in asked]
    engine = load_engine(artifact)
    assert engine.each(data.matrix).tolist() == np.array(wanted, np.float32).tolist()
    assert np.isfinite(engine.predict(np.full(len(INPUTS), np.nan, np.float32)))
    assert engine.worker is not None
    engine.worker.close()


def test_several_classes() -> None:
    """Of three classes the pipeline learns their places, and each has a probability."""
    data = examples(300)
    texts = tuple(CATEGORIES)
    labels = data.matrix[:, PAYMENT].astype(np.float64)
    bayes: Any = naive_bayes.BernoulliNB
    model = dataclasses.replace(
        MODEL,
        engine="python",
        online=Online(),
        pipeline=lambda: compose.SelectType(str) | preprocessing.OneHotEncoder() | bayes(),
    )
    version = make_version(model, dataclasses.replace(data, labels=labels, texts=texts), NOW_MS, lambda _: None)
    engine = load_engine(version.artifact)
    assert version.artifact.manifest.class_names == CATEGORIES
    answers = [engine.answer(row).probabilities for row in data.matrix[:40]]
    assert [max(found, key=found.__getitem__) for found in answers] == [CATEGORIES[int(row[PAYMENT])] for row in data.matrix[:40]]
    assert engine.worker is not None
    engine.worker.close()


def test_what_says_what_it_is() -> None:
    """A run's key knows the parameters of the pipeline; whether it is a classifier is river's word."""
    model = dataclasses.replace(MODEL, pipeline=logistic, engine="python", online=Online())
    assert "learning_rate=0.01" in described(model)
    assert is_classifier_of(model)
    typed = dataclasses.replace(model, pipeline=lambda: compose.SelectType(float, int) | linear_model.LogisticRegression(l2=0.25))
    with pytest.raises(TypeError):
        repr(typed.pipeline())
    assert "SelectType(" in described(typed)
    assert "l2=0.25" in described(typed)
    assert not is_classifier_of(dataclasses.replace(model, pipeline=values))


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        (
            lambda: compose.FuncTransformer(lambda row: {"ratio": row["distance"]}) | linear_model.LinearRegression(),
            "a missing one is left out",
        ),
        (preprocessing.StandardScaler, "neither a classifier nor a regressor of river"),
        (Ridge, "has no learn_one"),
    ],
)
def test_what_cannot_go_on_learning_is_refused(pipeline: Callable[[], Any], said: str) -> None:
    """A transformer alone, and an estimator that learns all at once."""
    with pytest.raises(TidemillError) as refused:
        version_of(pipeline)
    assert said in str(refused.value)


def test_a_learner_follows_a_world_that_turned_over() -> None:
    """On the stream of the benchmark: the frozen model loses more from the turn on, and snapshots lag behind the learner."""
    found = measured(next(case for case in CASES if case.name.startswith("SEA")), most=2_800)
    assert found.outcomes == 2_400
    assert found.learner < found.snapshots < 0.8 * found.frozen
