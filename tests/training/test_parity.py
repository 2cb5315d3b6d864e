"""ONNX answers what scikit-learn answers on every kind of row that requests bring, or there is no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skl2onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from tests.demo_state import NOW_MS, demo
from tests.training.town import FOLDER, town
from threadpoolctl import threadpool_limits

from tidemill import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelInput, Parity, inputs_of
from tidemill.models.engine import Engine
from tidemill.training.conversion import to_onnx
from tidemill.training.dataset import TrainingSet
from tidemill.training.fitting import Fitted, fit, outputs
from tidemill.training.parity import TOLERANCE, check_parity, engine_of, expected_answers
from tidemill.training.probes import probes
from tidemill_training.app import train

MODEL = demo().models["big_tip"]
CATEGORIES = ["card", "cash", "coin"]
INPUTS = inputs_of(MODEL.plan, {r.name: CATEGORIES for r in MODEL.requests if r.type is str})
DISTANCE, PAYMENT, MEMBER = (MODEL.input_names.index(name) for name in ("distance", "payment", "member"))
IMPUTED = SimpleImputer(strategy="constant", fill_value=-1.0)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait by spinning make small trees slow on a busy machine."""
    with threadpool_limits(1):
        yield


def examples(rows: int = 400, missing: float = 0.0) -> TrainingSet:
    """Rows of the tests' model whose label is mostly a sum of two inputs; a share of the values is missing."""
    draw = np.random.default_rng(3)
    matrix = draw.normal(size=(rows, len(INPUTS))).astype(np.float32)
    matrix[:, PAYMENT] = draw.integers(0, len(CATEGORIES), rows)
    matrix[:, MEMBER] = draw.integers(0, 2, rows)
    labels = (matrix[:, 0] + matrix[:, DISTANCE] + draw.normal(size=rows) * 0.3 > 0).astype(float)
    matrix[draw.random(matrix.shape) < missing] = np.nan
    return TrainingSet(matrix, labels, np.arange(rows), [f"s{i}" for i in range(rows)], INPUTS)


def plain(pipeline: Any, inputs: Sequence[ModelInput], *, probability: bool) -> bytes:
    """A pipeline as skl2onnx converts it."""
    columns = len(inputs)
    options = {id(pipeline): {"zipmap": False}}
    return bytes(skl2onnx.to_onnx(pipeline, initial_types=[("x", FloatTensorType([None, columns]))], options=options).SerializeToString())


def compared(pipeline: Callable[[], Any], data: TrainingSet, convert: Callable[..., bytes] = to_onnx) -> tuple[Parity, Fitted, Engine]:
    """A pipeline fitted, converted and compared, as training does it."""
    model = dataclasses.replace(MODEL, pipeline=pipeline)
    fitted = fit(model, data)
    onnx = convert(fitted.pipeline, fitted.holdout.inputs, probability=fitted.probability)
    expected = expected_answers(model, fitted)
    engine = engine_of(model, fitted, onnx)
    return check_parity(model, fitted, expected, engine), fitted, engine


def few_trees(kind: Callable[..., Any]) -> Any:
    """A tree, or a forest of ten."""
    return kind(random_state=0) if kind is DecisionTreeClassifier else kind(n_estimators=10, random_state=0)


def encoded(**options: Any) -> Any:
    """A pipeline that spreads the category over columns."""
    return make_pipeline(
        make_column_transformer(
            (OneHotEncoder(**options), [PAYMENT]),
            (make_pipeline(IMPUTED, StandardScaler()), [i for i in range(len(INPUTS)) if i != PAYMENT]),
        ),
        LogisticRegression(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("forest", [RandomForestClassifier, ExtraTreesClassifier, DecisionTreeClassifier])
def test_a_converter_that_sends_missing_values_astray(forest: Callable[..., Any], missing: float) -> None:
    """A tree as skl2onnx leaves it would be served with other answers for unknown entities: one line says where, and what mends it."""
    with pytest.raises(TidemillError) as caught:
        compared(lambda: few_trees(forest), examples(missing=missing), plain)
    text = str(caught.value)
    assert text.startswith("model 'big_tip': ONNX and scikit-learn differ on ")
    assert ("rows held out" if missing else "missing") in text
    assert "\n" not in text


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("forest", [RandomForestClassifier, ExtraTreesClassifier, DecisionTreeClassifier, BaggingClassifier])
def test_trees_meet_missing_values_as_they_learnt(forest: Callable[..., Any], missing: float) -> None:
    """The corrected converter sends each missing value where scikit-learn sends it."""
    parity, _, _ = compared(lambda: few_trees(forest), examples(missing=missing))
    assert parity.compared > 1_000
    assert parity.on_threshold == 0


def test_where_only_one_input_matters() -> None:
    """The input that is named is the one whose missing values go astray: no other is in any tree."""
    data = examples()
    kept = data.matrix[:, PAYMENT].copy()
    values = np.zeros_like(data.matrix)
    values[:, PAYMENT] = kept
    data = dataclasses.replace(data, values=values, labels=(kept > 1).astype(np.float64))
    with pytest.raises(TidemillError, match="rows with input 'payment' missing or never seen, such as"):
        compared(lambda: RandomForestClassifier(10, random_state=0), data, plain)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(
    "pipeline",
    [
        lambda: RandomForestRegressor(20, random_state=0),
        lambda: make_pipeline(IMPUTED, GradientBoostingRegressor(n_estimators=20)),
        lambda: HistGradientBoostingRegressor(max_iter=20),
        lambda: make_pipeline(IMPUTED, StandardScaler(), Ridge()),
    ],
)
def test_a_target_of_any_scale(pipeline: Callable[[], Any], scale: float, offset: float) -> None:
    """Money, seconds or shares: a difference is judged by how far the target spreads, wherever its zero lies."""
    data = examples(missing=0.1)
    data = dataclasses.replace(data, labels=(np.nan_to_num(data.matrix[:, 0]) + offset).astype(np.float64) * scale)
    parity, fitted, _ = compared(pipeline, data)
    assert parity.scale == pytest.approx(np.std(data.labels))
    assert parity.max_abs_diff <= parity.allowed(np.abs(fitted.holdout_output).max())


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e6])
def test_a_wrong_answer_is_wrong_at_any_scale(scale: float) -> None:
    """A thousandth of the spread of the target is a difference, also where it is a small number."""
    data = examples()
    data = dataclasses.replace(data, labels=data.matrix[:, 0].astype(np.float64) * scale)

    def shifted(pipeline: Any, inputs: Sequence[ModelInput], *, probability: bool) -> bytes:
        pipeline[-1].intercept_ += scale / 1_000
        made = to_onnx(pipeline, inputs, probability=probability)
        pipeline[-1].intercept_ -= scale / 1_000
        return made

    with pytest.raises(TidemillError, match="differ on 80 of 80 rows held out"):
        compared(lambda: make_pipeline(IMPUTED, Ridge()), data, shifted)


def test_rows_on_a_threshold_are_told_and_borne() -> None:
    """Of 3,000 rows a few lie within a millionth of a threshold after scaling: the version says how many."""
    data = examples(3_000)
    parity, _, _ = compared(lambda: make_pipeline(RobustScaler(), HistGradientBoostingClassifier(max_iter=30, random_state=0)), data)
    assert 0 < parity.on_threshold <= 0.01 * parity.compared
    assert parity.max_abs_diff <= TOLERANCE


def test_too_many_rows_on_a_threshold() -> None:
    """On few rows, thresholds are the rows themselves: the error names the step that moves them, and leaving it out mends it."""
    scaled = lambda: make_pipeline(IMPUTED, PCA(3), HistGradientBoostingClassifier())  # noqa: E731
    with pytest.raises(TidemillError) as caught:
        compared(scaled, examples())
    text = str(caught.value)
    assert " rows held out that lie on a threshold of HistGradientBoostingClassifier, such as " in text
    assert text.endswith(", first in step 'pca' (PCA); leave this step out, since trees need no scaling, or train on more rows")
    compared(lambda: make_pipeline(IMPUTED, HistGradientBoostingClassifier()), examples())


@pytest.mark.parametrize(
    ("pipeline", "missing"),
    [
        (lambda: HistGradientBoostingClassifier(max_iter=10, early_stopping=False), 0.0),
        (lambda: HistGradientBoostingClassifier(max_iter=10, early_stopping=False), 0.1),
        (lambda: make_pipeline(IMPUTED, RandomForestClassifier(10)), 0.1),
        (lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), 0.1),
        (lambda: encoded(handle_unknown="ignore"), 0.0),
    ],
)
def test_what_the_error_recommends_is_taken(pipeline: Callable[[], Any], missing: float) -> None:
    """Pipelines with an imputer, or trees that ONNX copies, are trained, and agree on every row that requests bring."""
    parity, fitted, engine = compared(pipeline, examples(missing=missing))
    assert (parity.rows, parity.tolerance) == (80, TOLERANCE)
    assert parity.max_abs_diff <= TOLERANCE
    rows = np.vstack([probe.rows for probe in probes(MODEL, INPUTS, fitted.holdout.matrix)])
    assert [engine.predict(row) for row in rows] == pytest.approx(outputs(fitted.pipeline, rows, probability=True).tolist(), abs=TOLERANCE)


def test_a_linear_model_without_imputer() -> None:
    """It learnt from complete rows, and fails on the first entity that nobody knows: refused, naming input and mend."""
    with pytest.raises(
        TidemillError, match=r"fails on rows with input '\w+' missing, .*: ValueError: Input X contains NaN.; put SimpleImputer"
    ):
        compared(LogisticRegression, examples())


@pytest.mark.parametrize(
    "pipeline",
    [
        lambda: make_pipeline(IMPUTED, GradientBoostingRegressor(n_estimators=20)),
        lambda: HistGradientBoostingRegressor(max_iter=10, early_stopping=False),
        lambda: make_pipeline(IMPUTED, StandardScaler(), Ridge()),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 10_000.0])
def test_regressors_are_compared_by_the_size_of_their_answers(pipeline: Callable[[], Any], scale: float) -> None:
    """An answer of thousands has float32's error of thousands; so has one of a value far beyond those seen."""
    data = examples()
    data = dataclasses.replace(data, labels=(data.matrix[:, 0] * scale).astype(np.float64))
    parity, _, _ = compared(pipeline, data)
    assert parity.max_abs_diff <= TOLERANCE * max(1.0, 10 * scale)


def test_a_pipeline_that_fails_on_a_row_of_ours() -> None:
    """An encoder that knows no unseen category would raise where ONNX answers something: refused, with the encoder's reason."""
    with pytest.raises(TidemillError) as caught:
        compared(encoded, examples())
    text = str(caught.value)
    assert "step 'columntransformer > onehotencoder' (OneHotEncoder) fails on rows with input 'payment' missing or never seen, " in text
    assert text.endswith("-1), OneHotEncoder(handle_unknown='ignore')) in its place")
    assert "\n" not in text


def test_the_rows_of_ours() -> None:
    """Every input is missing once alone, every view once as a whole, all at once; numbers go beyond those seen, flags do not."""
    data = examples(200)
    made = {probe.what: probe.rows for probe in probes(MODEL, INPUTS, data.matrix)}
    for i, spec in enumerate(INPUTS):
        (rows,) = [rows for what, rows in made.items() if what.startswith(f"with input {spec.name!r} missing")]
        assert (np.isnan(rows).sum(axis=0) == [100 if j == i else 0 for j in range(len(INPUTS))]).all()
    unknown = made["of an entity that view 'zones' does not know"]
    assert [INPUTS[i].name.split("__")[0] for i in np.flatnonzero(np.isnan(unknown[0]))] == ["zones"] * sum(
        name.startswith("zones__") for name in MODEL.input_names
    )
    assert np.isnan(made["with all inputs missing"]).all()
    assert set(made["with input 'member' from 0 to 1"][:, MEMBER]) == {0.0, 1.0}
    (far,) = [rows[:, DISTANCE] for what, rows in made.items() if what.startswith("with input 'distance' from")]
    seen = data.matrix[:, DISTANCE]
    assert far.min() < seen.min() - 9 * np.ptp(seen)
    assert far.max() > seen.max() + 9 * np.ptp(seen)
    assert {seen.min(), seen.max()} <= set(far)
    assert not any(what.startswith("with input 'payment' from") for what in made)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_infinity=False), min_size=1, max_size=20), st.integers(0, DISTANCE))
def test_rows_of_ours_are_rows_that_a_request_can_bring(column: list[float], place: int) -> None:
    """Whatever an input holds, empty or at the ends of float32: probes are finite or missing, and keep the sign of what was seen."""
    matrix = np.zeros((len(column), len(INPUTS)), np.float32)
    matrix[:, place] = column
    for probe in probes(MODEL, INPUTS, matrix):
        assert not np.isinf(probe.rows).any()
        assert probe.rows.dtype == np.float32
        assert 0 < len(probe.rows) <= 100
        if not (matrix[:, place] < 0).any():
            assert not (probe.rows < 0).any()


@pytest.mark.slow
def test_a_whole_training_refuses_and_stores_nothing(tmp_path: Path) -> None:
    """The town's model with an estimator that skl2onnx converts wrongly: no artifact, no run."""
    world = town(tmp_path, 150)
    wrong: Model = dataclasses.replace(MODEL, pipeline=lambda: make_pipeline(IMPUTED, LinearDiscriminantAnalysis()))
    with pytest.raises(TidemillError, match=r"ONNX and scikit-learn differ on .*\(LinearDiscriminantAnalysis\); use LogisticRegression"):
        train(demo(), str(FOLDER), wrong, str(world.root), NOW_MS + 10**9, lambda _: None)
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "mlflow").exists()
