"""The zoo: pipelines of the kinds that people use most, of the tests' model (nine features, two numbers, a flag and a text)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn import ensemble as se
from sklearn import linear_model as lm
from sklearn import preprocessing as pp
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.feature_selection import SelectFromModel, SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.demo_state import demo

MODEL = demo().models["big_tip"]
TEXT = MODEL.input_names.index("payment")
NUMBERS = [name for name in MODEL.input_names if name != "payment"]
PLACES = [MODEL.input_names.index(name) for name in NUMBERS]
Made = Callable[[], Any]


def after(*steps: Any, strategy: str = "mean") -> Pipeline:
    """An imputer and these steps, for the matrix."""
    return make_pipeline(SimpleImputer(strategy=strategy), *steps)


def scaled(*steps: Any) -> Pipeline:
    """An imputer, a scaler and these steps, for the matrix."""
    return after(pp.StandardScaler(), *steps)


def coded(last: Any, encoder: Any = None) -> Pipeline:
    """The matrix with its category spread over columns, by number."""
    texts = make_pipeline(SimpleImputer(strategy="constant", fill_value=-1), encoder or pp.OneHotEncoder(handle_unknown="ignore"))
    return make_pipeline(make_column_transformer((texts, [TEXT]), (SimpleImputer(strategy="median"), PLACES)), pp.StandardScaler(), last)


def named(last: Any, texts: Any = None, numbers: Any = None) -> Pipeline:
    """A data frame: an encoder of the text, and what makes the numbers whole."""
    hot = texts or pp.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(make_column_transformer((hot, ["payment"]), (numbers or SimpleImputer(), NUMBERS)), last)


def logistic(**options: Any) -> Any:
    """A logistic regression that converges."""
    return lm.LogisticRegression(max_iter=1_000, **options)


def library(name: str) -> Any:
    """A library of boosted trees; the test is skipped where it, or its converters, are not installed."""
    pytest.importorskip("onnxmltools")
    return pytest.importorskip(name)


def forest(**options: Any) -> Any:
    """A small forest."""
    return se.RandomForestClassifier(15, random_state=0, **options)


def boosted(**options: Any) -> Any:
    """Boosted trees by histograms."""
    return se.HistGradientBoostingClassifier(max_iter=15, random_state=0, **options)


def amounts(**options: Any) -> Any:
    """Boosted trees of a value."""
    return se.HistGradientBoostingRegressor(max_iter=15, random_state=0, **options)


CLASSIFIERS: dict[str, Made] = {
    "logistic regression": lambda: scaled(logistic()),
    "logistic regression, weighted": lambda: after(logistic(class_weight="balanced")),
    "logistic regression, cross-validated": lambda: scaled(
        lm.LogisticRegressionCV(Cs=3, cv=2, l1_ratios=(0.0,), use_legacy_attributes=False)
    ),
    "stochastic gradient": lambda: scaled(lm.SGDClassifier(loss="log_loss", random_state=0)),
    "calibrated svc": lambda: scaled(CalibratedClassifierCV(LinearSVC(), cv=2)),
    "calibrated kernel svc": lambda: scaled(CalibratedClassifierCV(SVC(), ensemble=False, cv=2)),
    "calibrated forest": lambda: after(CalibratedClassifierCV(forest(), cv=2, method="isotonic")),
    "tree": lambda: DecisionTreeClassifier(max_depth=5),
    "forest": forest,
    "forest, weighted, after an imputer": lambda: after(forest(class_weight="balanced")),
    "extra trees": lambda: se.ExtraTreesClassifier(15, random_state=0),
    "gradient boosting": lambda: after(se.GradientBoostingClassifier(n_estimators=15)),
    "histogram boosting": boosted,
    "histogram boosting after nothing": lambda: make_pipeline("passthrough", boosted()),
    "histogram boosting, monotonic": lambda: boosted(monotonic_cst=[1, *[0] * (len(NUMBERS))]),
    "histogram boosting, scaled": lambda: make_pipeline(pp.StandardScaler(), boosted()),
    "adaptive boosting": lambda: after(se.AdaBoostClassifier(n_estimators=10)),
    "bagging": lambda: se.BaggingClassifier(DecisionTreeClassifier(), n_estimators=5),
    "votes": lambda: after(se.VotingClassifier([("a", logistic()), ("b", forest())], voting="soft")),
    "votes, weighted": lambda: after(se.VotingClassifier([("a", logistic()), ("b", boosted())], voting="soft", weights=[1, 3])),
    "stack": lambda: after(se.StackingClassifier([("a", logistic()), ("b", forest())], cv=2)),
    "stack of pipelines": lambda: se.StackingClassifier([("a", scaled(logistic())), ("b", boosted())], cv=2),
    "grid search": lambda: GridSearchCV(scaled(logistic()), {"logisticregression__C": [0.1, 1.0]}, cv=2),
    "random search": lambda: RandomizedSearchCV(boosted(), {"learning_rate": [0.1, 0.2]}, n_iter=2, cv=2),
    "naive bayes": lambda: after(GaussianNB()),
    "naive bayes of flags": lambda: after(pp.Binarizer(), BernoulliNB()),
    "nearest neighbours": lambda: scaled(KNeighborsClassifier(5)),
    "network": lambda: scaled(MLPClassifier(hidden_layer_sizes=(8,), max_iter=50, random_state=0)),
    "quadratic discriminant": lambda: after(QuadraticDiscriminantAnalysis()),
    "range scaler": lambda: after(pp.MinMaxScaler(), logistic()),
    "robust scaler": lambda: after(pp.RobustScaler(), logistic(), strategy="median"),
    "largest scaler": lambda: after(pp.MaxAbsScaler(), logistic()),
    "power transform": lambda: after(pp.PowerTransformer(), logistic()),
    "quantile transform": lambda: after(pp.QuantileTransformer(n_quantiles=5), logistic()),
    "polynomials": lambda: scaled(pp.PolynomialFeatures(2, interaction_only=True), logistic()),
    "bins": lambda: after(pp.KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), logistic()),
    "principal components": lambda: scaled(PCA(4), logistic()),
    "singular values": lambda: scaled(TruncatedSVD(4), logistic()),
    "best columns": lambda: after(SelectKBest(k=4), logistic()),
    "columns of a forest": lambda: after(SelectFromModel(forest()), logistic()),
    "varying columns": lambda: after(VarianceThreshold(), logistic()),
    "union": lambda: after(make_union(pp.StandardScaler(), PCA(2)), logistic()),
    "category by number": lambda: coded(logistic()),
    "category by number, ordinal": lambda: coded(forest(), pp.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-2)),
    "category by name": lambda: named(logistic(), numbers=scaled()),
    "category by name, filled": lambda: named(
        logistic(), make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), pp.OneHotEncoder(handle_unknown="ignore"))
    ),
    "category by name, ordinal, boosted": lambda: named(
        boosted(), pp.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), "passthrough"
    ),
    "category by name, target": lambda: named(forest(), pp.TargetEncoder()),
    "columns by type": lambda: make_pipeline(
        make_column_transformer(
            (pp.OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
            (scaled(), make_column_selector(dtype_include="number")),
        ),
        logistic(),
    ),
    "category by name, votes": lambda: named(se.VotingClassifier([("a", logistic()), ("b", forest())], voting="soft")),
    "category by name, searched": lambda: GridSearchCV(named(forest()), {"randomforestclassifier__max_depth": [2, 4]}, cv=2),
}
"""By name: pipelines of two classes."""

REGRESSORS: dict[str, Made] = {
    "least squares": lambda: after(lm.LinearRegression()),
    "ridge": lambda: scaled(lm.Ridge()),
    "lasso": lambda: scaled(lm.LassoCV(cv=2)),
    "elastic net": lambda: scaled(lm.ElasticNet()),
    "huber": lambda: scaled(lm.HuberRegressor(max_iter=1_000)),
    "bayesian ridge": lambda: after(lm.BayesianRidge()),
    "poisson": lambda: scaled(lm.PoissonRegressor()),
    "gamma": lambda: scaled(lm.GammaRegressor()),
    "quantile": lambda: scaled(lm.QuantileRegressor(quantile=0.9, alpha=0.01)),
    "tree of values": lambda: DecisionTreeRegressor(max_depth=5),
    "forest of values": lambda: se.RandomForestRegressor(15, random_state=0),
    "extra trees of values": lambda: after(se.ExtraTreesRegressor(15, random_state=0)),
    "boosted quantile": lambda: after(se.GradientBoostingRegressor(loss="quantile", alpha=0.9, n_estimators=15)),
    "histogram boosting of values": amounts,
    "histogram boosting, quantile": lambda: amounts(loss="quantile", quantile=0.9),
    "histogram boosting, poisson": lambda: amounts(loss="poisson"),
    "histogram boosting, gamma, by name": lambda: named(amounts(loss="gamma"), numbers="passthrough"),
    "kernel svr": lambda: scaled(SVR()),
    "neighbours of values": lambda: scaled(KNeighborsRegressor(5)),
    "network of values": lambda: scaled(MLPRegressor(hidden_layer_sizes=(8,), max_iter=50, random_state=0)),
    "votes of values": lambda: after(se.VotingRegressor([("a", lm.Ridge()), ("b", se.RandomForestRegressor(10, random_state=0))])),
    "stack of values": lambda: after(se.StackingRegressor([("a", lm.Ridge()), ("b", amounts())], cv=2)),
    "ridge by name": lambda: named(lm.Ridge(), numbers=scaled()),
}
"""By name: pipelines of a value."""

SEVERAL: dict[str, Made] = {
    "logistic regression": lambda: scaled(logistic()),
    "logistic regression, one against the rest": lambda: scaled(OneVsRestClassifier(logistic())),
    "stochastic gradient": lambda: scaled(lm.SGDClassifier(loss="log_loss", random_state=0)),
    "tree": lambda: DecisionTreeClassifier(max_depth=5, random_state=0),
    "forest": forest,
    "extra trees": lambda: after(se.ExtraTreesClassifier(15, random_state=0)),
    "gradient boosting": lambda: after(se.GradientBoostingClassifier(n_estimators=15)),
    "histogram boosting": boosted,
    "adaptive boosting": lambda: after(se.AdaBoostClassifier(n_estimators=10)),
    "bagging": lambda: after(se.BaggingClassifier(DecisionTreeClassifier(max_depth=4), n_estimators=5)),
    "votes": lambda: after(se.VotingClassifier([("a", logistic()), ("b", forest())], voting="soft")),
    "stack": lambda: after(se.StackingClassifier([("a", logistic()), ("b", forest())], cv=2)),
    "grid search": lambda: GridSearchCV(scaled(logistic()), {"logisticregression__C": [0.1, 1.0]}, cv=2),
    "calibrated svc": lambda: scaled(CalibratedClassifierCV(LinearSVC(), cv=2)),
    "calibrated forest": lambda: after(CalibratedClassifierCV(forest(), cv=2)),
    "naive bayes": lambda: after(GaussianNB()),
    "nearest neighbours": lambda: scaled(KNeighborsClassifier(5)),
    "network": lambda: scaled(MLPClassifier(hidden_layer_sizes=(8,), max_iter=200, random_state=0)),
    "quadratic discriminant": lambda: after(QuadraticDiscriminantAnalysis()),
    "lightgbm": lambda: library("lightgbm").LGBMClassifier(n_estimators=15, verbose=-1),
    "xgboost": lambda: library("xgboost").XGBClassifier(n_estimators=15),
    "catboost": lambda: library("catboost").CatBoostClassifier(iterations=15, verbose=False, allow_writing_files=False),
    "category by name": lambda: named(logistic(), numbers=scaled()),
    "category by name, searched": lambda: GridSearchCV(named(forest()), {"randomforestclassifier__max_depth": [2, 4]}, cv=2),
}
"""By name: pipelines of three classes."""
