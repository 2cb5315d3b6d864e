"""A pipeline is fitted, converted and proved equal, or refused with a reason; nothing half right is deployed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tests.demo_state import demo

from tidemill import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelInput
from tidemill.training.conversion import to_onnx
from tidemill.training.dataset import TrainingSet
from tidemill.training.fitting import fit, outputs

COLUMNS = [ModelInput(name, "feature") for name in ("speed", "load", "heat")]


def model(pipeline: Callable[[], Any]) -> Model:
    """The tests' model with another pipeline."""
    return dataclasses.replace(demo().models["big_tip"], pipeline=pipeline)


def examples(rows: int = 300, seed: int = 0) -> TrainingSet:
    """Rows whose label is mostly the sign of the first column; some values are missing."""
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=(rows, 3)).astype(np.float32)
    labels = (matrix[:, 0] + draw.normal(size=rows) * 0.3 > 0).astype(float)
    matrix[draw.random(matrix.shape) < 0.1] = np.nan
    return TrainingSet(matrix, labels, np.arange(rows), [f"s{i}" for i in range(rows)], COLUMNS)


def boosted() -> Any:
    """Trees that take missing values as they are."""
    return HistGradientBoostingClassifier(max_iter=10, early_stopping=False)


def linear() -> Any:
    """The least pipeline."""
    return make_pipeline(SimpleImputer(), LogisticRegression())


def test_metrics_come_from_rows_the_model_has_not_seen() -> None:
    """The holdout is the last fifth in time; the metrics are those of a pipeline fitted on the rest."""
    data = examples()
    fitted = fit(model(linear), data)
    assert fitted.holdout.subjects == data.subjects[240:]
    earlier = linear().fit(data.matrix[:240], data.labels[:240])
    assert fitted.holdout_output.tobytes() == outputs(earlier, data.matrix[240:], probability=True).tobytes()
    assert fitted.metrics["auc"] > 0.9
    assert fitted.metrics["examples"] == 300
    assert fitted.metrics["brier"] == pytest.approx(np.mean((fitted.holdout_output - data.labels[240:]) ** 2))
    assert fitted.metrics["positive_share"] == data.labels[240:].mean()


def test_the_deployed_model_is_fitted_on_everything() -> None:
    """The pipeline kept has seen all rows."""
    data = examples()
    everything = linear().fit(data.matrix, data.labels)
    kept = fit(model(linear), data).pipeline
    assert outputs(kept, data.matrix, probability=True).tobytes() == outputs(everything, data.matrix, probability=True).tobytes()


def test_a_regressor() -> None:
    """A value has errors instead of an AUC."""
    data = examples()
    data = dataclasses.replace(data, labels=np.nan_to_num(data.matrix[:, 1]).astype(np.float64) * 3)
    fitted = fit(model(lambda: make_pipeline(SimpleImputer(), GradientBoostingRegressor(n_estimators=20))), data)
    assert not fitted.probability
    assert set(fitted.metrics) == {"mae", "mae_error", "rmse", "examples"}
    assert 0 < fitted.metrics["mae"] <= fitted.metrics["rmse"]


@pytest.mark.parametrize(
    "labels", [np.zeros(300), np.ones(300), np.arange(300) < 100, np.arange(300) >= 250, np.isin(np.arange(300), (1, 2, 299))]
)
def test_one_kind_of_outcome_only(labels: np.ndarray) -> None:
    """Both outcomes must occur in what is fitted and in what is held out."""
    with pytest.raises(
        TidemillError, match="300 examples do not show both outcomes twice before and after the holdout's start; collect more"
    ):
        fit(model(linear), dataclasses.replace(examples(), labels=labels.astype(np.float64)))


def test_a_classifier_of_many_numbers() -> None:
    """A hundred whole numbers are classes; more, and others, are not, and a condition or a regressor is what can be had."""
    labels = np.linspace(0, 1, 300)
    with pytest.raises(
        TidemillError,
        match="true or false, a text, or one of 100 whole numbers at most, but 'tip > 2' gives 300 different numbers; write a",
    ):
        fit(model(linear), dataclasses.replace(examples(), labels=labels))
    assert not fit(model(lambda: make_pipeline(SimpleImputer(), Ridge())), dataclasses.replace(examples(), labels=labels)).probability


def test_too_few_examples() -> None:
    """A handful of rows is not worth a model."""
    with pytest.raises(TidemillError, match="9 examples are too few to fit and to hold some out; 10 are the least; collect more"):
        fit(model(linear), examples(9))


def test_columns_without_any_value_are_named() -> None:
    """Boosted trees cannot take a column that is all missing; the error says which, and what to do."""
    data = examples()
    data.matrix[:, 1] = np.nan
    with pytest.raises(
        TidemillError, match=r"HistGradientBoostingClassifier cannot be fitted to 240 rows: .*\(no row has a value of load\); see that"
    ):
        fit(model(boosted), data)


def test_columns_without_any_value_are_no_error_for_who_can_take_them() -> None:
    """A pipeline that begins with the imputer that the error names is fitted."""
    data = examples()
    data.matrix[:, 1] = np.nan
    pipeline = lambda: make_pipeline(SimpleImputer(keep_empty_features=True), boosted())  # noqa: E731
    assert fit(model(pipeline), data).metrics["auc"] > 0.8


def test_a_pipeline_that_cannot_be_made_or_fitted() -> None:
    """A mistake in the project's code is told with its kind, not as ours."""

    def broken() -> Any:
        raise ZeroDivisionError("oops")

    with pytest.raises(TidemillError, match="its pipeline cannot be made: ZeroDivisionError: oops; return a scikit-learn"):
        fit(model(broken), examples())
    with pytest.raises(
        TidemillError, match=r"LogisticRegression cannot be fitted to 240 rows: ValueError: Input X contains NaN\.; put SimpleImputer"
    ):
        fit(model(LogisticRegression), examples())


def test_a_pipeline_without_an_onnx_twin() -> None:
    """What skl2onnx cannot convert is refused with its reason."""
    data = examples()
    pipeline = make_pipeline(SimpleImputer(), FunctionTransformer(np.tanh), LogisticRegression()).fit(data.matrix, data.labels)
    with pytest.raises(
        TidemillError, match=r"skl2onnx cannot convert step 'functiontransformer' \(FunctionTransformer\): .*; leave this step out"
    ):
        to_onnx(pipeline, 3, probability=True)


@pytest.mark.parametrize("make", [linear, boosted, lambda: make_pipeline(SimpleImputer(), RandomForestClassifier(10))])
def test_onnx_answers_what_scikit_learn_answers(make: Callable[[], Any]) -> None:
    """The twin takes one float32 matrix and gives two probabilities per row, equal to those of scikit-learn."""
    import onnxruntime

    data = examples()
    pipeline = make().fit(data.matrix, data.labels)
    session = onnxruntime.InferenceSession(to_onnx(pipeline, 3, probability=True), providers=["CPUExecutionProvider"])
    found = session.run(None, {"features": data.matrix})[1]
    assert np.abs(found[:, 1] - outputs(pipeline, data.matrix, probability=True)).max() < 1e-5
