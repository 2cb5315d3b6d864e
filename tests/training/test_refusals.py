"""A pipeline that cannot be served is refused by one line that names the step, and what the line says mends it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import NMF, PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier, VotingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, Perceptron, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from tests.training.test_parity import IMPUTED, INPUTS, PAYMENT, compared, examples
from threadpoolctl import threadpool_limits

from tidemill.errors import TidemillError

pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn warns of imputers without values, and of few iterations
REST = [i for i in range(len(INPUTS)) if i != PAYMENT]
ENCODER = OneHotEncoder(handle_unknown="ignore")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait by spinning make small models slow on a busy machine."""
    with threadpool_limits(1):
        yield


class Own(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A step of a project."""

    def fit(self, rows: Any, labels: Any = None) -> Own:
        """Learns nothing."""
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: Any) -> Any:
        """Changes nothing."""
        return rows


class Guess(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of a project."""

    def fit(self, rows: Any, labels: Any) -> Guess:
        """Learns nothing."""
        self.n_features_in_, self.classes_ = rows.shape[1], np.unique(labels)
        return self

    def predict(self, rows: Any) -> Any:
        """Always true."""
        return np.ones(len(rows))

    def predict_proba(self, rows: Any) -> Any:
        """Always even."""
        return np.full((len(rows), 2), 0.5)


def over(encoder: Any, rest: Any = IMPUTED) -> Pipeline:
    """A logistic regression over an encoded category and other inputs."""
    return make_pipeline(make_column_transformer((encoder, [PAYMENT]), (rest, REST)), LogisticRegression(max_iter=500))


def last(*steps: Any) -> Pipeline:
    """An imputer, and these steps."""
    return make_pipeline(IMPUTED, *steps)


def votes(**options: Any) -> VotingClassifier:
    """Two estimators that vote."""
    return VotingClassifier([("a", LogisticRegression()), ("b", RandomForestClassifier(5))], **options)


IN_ITS_PLACE = r"write make_pipeline\(SimpleImputer\(strategy='constant', fill_value=-1\), OneHotEncoder\(handle_unknown='ignore'\)\) in"
WRAP = r"gives no probabilities; wrap it: CalibratedClassifierCV\({}\(\.\.\.\)\), from sklearn.calibration$"

CLASSIFIERS: dict[str, tuple[Callable[[], Any], str, Callable[[], Any]]] = {
    "svc without probabilities": (
        lambda: last(StandardScaler(), LinearSVC()),
        r"step 'linearsvc' \(LinearSVC\) " + WRAP.format("LinearSVC"),
        lambda: last(StandardScaler(), CalibratedClassifierCV(LinearSVC())),
    ),
    "kernel svc": (
        lambda: last(StandardScaler(), SVC()),
        r"step 'svc' \(SVC\) " + WRAP.format("SVC"),
        lambda: last(StandardScaler(), CalibratedClassifierCV(SVC())),
    ),
    "ridge classifier": (
        lambda: last(RidgeClassifier()),
        r"step 'ridgeclassifier' \(RidgeClassifier\) " + WRAP.format("RidgeClassifier"),
        lambda: last(CalibratedClassifierCV(RidgeClassifier())),
    ),
    "hinge": (
        lambda: last(StandardScaler(), SGDClassifier()),
        r"step 'sgdclassifier' \(SGDClassifier\) " + WRAP.format("SGDClassifier"),
        lambda: last(StandardScaler(), CalibratedClassifierCV(SGDClassifier())),
    ),
    "perceptron in a search": (
        lambda: GridSearchCV(last(Perceptron()), {"perceptron__alpha": [1e-4, 1e-3]}, cv=2),
        r"step 'perceptron' \(Perceptron\) " + WRAP.format("Perceptron"),
        lambda: last(CalibratedClassifierCV(Perceptron())),
    ),
    "hard votes": (
        lambda: last(votes()),
        r"step 'votingclassifier' \(VotingClassifier\) gives no probabilities; give it voting='soft'$",
        lambda: last(votes(voting="soft")),
    ),
    "encoder that knows no missing category": (
        lambda: over(OneHotEncoder()),
        r"step 'columntransformer > onehotencoder' \(OneHotEncoder\).*; " + IN_ITS_PLACE,
        lambda: over(last(ENCODER)),
    ),
    "missing category": (
        lambda: over(ENCODER),
        r"cannot convert step 'columntransformer > onehotencoder' \(OneHotEncoder\): .*NaN.*; " + IN_ITS_PLACE,
        lambda: over(last(ENCODER)),
    ),
    "rare categories": (
        lambda: over(last(OneHotEncoder(handle_unknown="ignore", min_frequency=200))),
        r"step 'columntransformer > pipeline > onehotencoder' \(OneHotEncoder\): .*; leave min_frequency and max_categories out",
        lambda: over(last(ENCODER)),
    ),
    "no imputer": (
        lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        r"step 'logisticregression' \(LogisticRegression\) cannot be fitted to 320 rows: ValueError: Input X contains NaN.*; "
        r"put SimpleImputer\(strategy='constant', fill_value=-1\) before it",
        lambda: make_pipeline(StandardScaler(), IMPUTED, LogisticRegression()),
    ),
    "indicator of the imputer": (
        lambda: make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression(max_iter=500)),
        r"first in step 'simpleimputer' \(SimpleImputer\); give it keep_empty_features=True, and leave add_indicator out",
        lambda: make_pipeline(SimpleImputer(keep_empty_features=True), LogisticRegression(max_iter=500)),
    ),
    "indicator": (
        lambda: make_pipeline(make_union(SimpleImputer(), MissingIndicator(features="all")), LogisticRegression(max_iter=500)),
        r"step 'featureunion > missingindicator' \(MissingIndicator\): .*; leave this step out: trees see",
        lambda: make_pipeline(make_union(SimpleImputer()), LogisticRegression(max_iter=500)),
    ),
    "nearest imputer": (
        lambda: make_pipeline(KNNImputer(), LogisticRegression(max_iter=500)),
        r"step 'knnimputer' \(KNNImputer\) fails on rows with all inputs missing.*; use a SimpleImputer",
        lambda: make_pipeline(SimpleImputer(), LogisticRegression(max_iter=500)),
    ),
    "iterative imputer": (
        lambda: make_pipeline(IterativeImputer(max_iter=2), LogisticRegression(max_iter=500)),
        r"step 'iterativeimputer' \(IterativeImputer\): .*; use a SimpleImputer",
        lambda: make_pipeline(SimpleImputer(), LogisticRegression(max_iter=500)),
    ),
    "native categories": (
        lambda: HistGradientBoostingClassifier(max_iter=5, categorical_features=[PAYMENT]),
        r"first in HistGradientBoostingClassifier; leave categorical_features out",
        lambda: HistGradientBoostingClassifier(max_iter=5),
    ),
    "function": (
        lambda: last(FunctionTransformer(np.tanh), LogisticRegression()),
        r"cannot convert step 'functiontransformer' \(FunctionTransformer\): .*; leave this step out, or do its work in a feature",
        lambda: last(LogisticRegression()),
    ),
    "a step of one's own": (
        lambda: last(Own(), LogisticRegression()),
        r"cannot convert step 'own' \(Own\): .*; leave this step out, or do its work in a feature",
        lambda: last(LogisticRegression()),
    ),
    "a classifier of one's own": (
        lambda: last(Guess()),
        r"cannot convert step 'guess' \(Guess\): .*; use another estimator, such as LogisticRegression or HistGradientBoostingClassifier",
        lambda: last(HistGradientBoostingClassifier(max_iter=5)),
    ),
    "splines": (
        lambda: last(SplineTransformer(), LogisticRegression()),
        r"cannot convert step 'splinetransformer' \(SplineTransformer\): .*; use KBinsDiscretizer or PolynomialFeatures",
        lambda: last(KBinsDiscretizer(quantile_method="averaged_inverted_cdf"), LogisticRegression()),
    ),
    "clusters": (
        lambda: last(StandardScaler(), KMeans(3), LogisticRegression()),
        r"cannot convert step 'kmeans' \(KMeans\): .*; leave this step out, or do its work in a feature",
        lambda: last(StandardScaler(), LogisticRegression()),
    ),
    "negative values": (
        lambda: last(MinMaxScaler(), NMF(3), LogisticRegression()),
        r"step 'nmf' \(NMF\) fails on rows held out, .*; leave this step out, or do its work in a feature",
        lambda: last(MinMaxScaler(), LogisticRegression()),
    ),
    "calibration by temperature": (
        lambda: last(StandardScaler(), CalibratedClassifierCV(LogisticRegression(), method="temperature")),
        r"step 'calibratedclassifiercv' \(CalibratedClassifierCV\): .*; give it method='sigmoid', or leave the calibration out",
        lambda: last(StandardScaler(), CalibratedClassifierCV(LogisticRegression(), method="sigmoid")),
    ),
    "gaussian process": (
        lambda: last(StandardScaler(), GaussianProcessClassifier()),
        r"step 'gaussianprocessclassifier' \(GaussianProcessClassifier\) fails on .*; use another estimator, such as LogisticRegression",
        lambda: last(StandardScaler(), LogisticRegression()),
    ),
    "discriminant": (
        lambda: last(LinearDiscriminantAnalysis()),
        r"first in step 'lineardiscriminantanalysis' \(LinearDiscriminantAnalysis\); use LogisticRegression",
        lambda: last(LogisticRegression()),
    ),
    "calibrated pipeline": (
        lambda: CalibratedClassifierCV(last(LinearSVC())),
        r"cannot convert CalibratedClassifierCV: .*; calibrate inside the pipeline: make_pipeline\(\.\.\., CalibratedClassifierCV",
        lambda: last(CalibratedClassifierCV(LinearSVC())),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_that_is_refused_and_mended(name: str) -> None:
    """One line names the step; the pipeline as the line says is taken."""
    pipeline, says, mended = CLASSIFIERS[name]
    data = examples(missing=0.1)
    with pytest.raises(TidemillError) as caught:
        compared(pipeline, data)
    assert "\n" not in str(caught.value)
    assert re.search(says, str(caught.value))
    assert compared(mended, data)[0].on_threshold == 0


@pytest.mark.parametrize("others", [(), (StandardScaler(),), (StandardScaler(), PCA(3))])
@pytest.mark.parametrize("empty", [0, PAYMENT])
def test_an_input_without_any_value(empty: int, others: tuple[Any, ...]) -> None:
    """An imputer leaves such a column out, and ONNX does not: its option mends it, and so it does before one that cannot be fitted."""
    data = examples(missing=0.1)
    data.matrix[:, empty] = np.nan
    with pytest.raises(TidemillError, match=r"step 'simpleimputer' \(SimpleImputer\).*; give it keep_empty_features=True"):
        compared(lambda: make_pipeline(SimpleImputer(), *others, LogisticRegression(max_iter=500)), data)
    compared(lambda: make_pipeline(SimpleImputer(keep_empty_features=True), *others, LogisticRegression(max_iter=500)), data)


def test_an_ordinal_encoder() -> None:
    """An unseen category is an error for it by default; the line says how it becomes a number."""
    with pytest.raises(TidemillError) as caught:
        compared(lambda: over(OrdinalEncoder()), examples())
    assert str(caught.value).endswith(
        "; write make_pipeline(SimpleImputer(strategy='constant', fill_value=-1), "
        "OrdinalEncoder(handle_unknown='use_encoded_value', unknown_value=-2)) in its place"
    )
    compared(lambda: over(last(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-2))), examples())


def test_an_amount_whose_target_is_transformed() -> None:
    """No converter knows a transformed target; a loss for amounts takes its place."""
    data = examples(missing=0.1)
    data = dataclasses.replace(data, labels=np.exp(np.nan_to_num(data.matrix[:, 0]) + 5).astype(np.float64))
    with pytest.raises(
        TidemillError, match=r"convert TransformedTargetRegressor: .*; use its regressor alone, or one with a loss for such"
    ):
        compared(lambda: TransformedTargetRegressor(last(Ridge()), func=np.log, inverse_func=np.exp), data)
    compared(lambda: last(Ridge()), data)
    compared(lambda: HistGradientBoostingRegressor(loss="gamma", max_iter=10), data)


@pytest.mark.parametrize(
    "pipeline", [lambda: last(StandardScaler(), LogisticRegression()), lambda: HistGradientBoostingClassifier(max_iter=5)]
)
def test_an_input_that_never_changes(pipeline: Callable[[], Any]) -> None:
    """A constant is no reason to refuse."""
    data = examples()
    data.matrix[:, 1] = 3.0
    assert compared(pipeline, data)[0].max_abs_diff < 1e-5
