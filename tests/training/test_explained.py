"""Explanations of pipelines are the Shapley values of the fitted pipeline itself, by their definition, in terms of the model's inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from tests.attribution.oracle import shapley
from tests.training.test_boosting import boosted
from tests.training.test_several import three
from tests.training.test_zoo import ROWS, TRUTH, training_set
from tests.training.zoo import CLASSIFIERS, MODEL, REGRESSORS, SEVERAL, named
from threadpoolctl import threadpool_limits

from tidemill.attribution.explainer import Explainer
from tidemill.attribution.links import scale_of
from tidemill.attribution.stored import FILE, Recipe, unpacked
from tidemill.models.answers import chosen
from tidemill.models.engine import load_engine
from tidemill.training.version import Version, make_version

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of scikit-learn: few rows, few iterations, categories never seen
EXACT = {
    "logistic regression": ("additive", "log_odds"), "stochastic gradient": ("additive", "log_odds"), "principal components": ("additive", "log_odds"),
    "quantile transform": ("additive", "log_odds"), "category by name": ("additive", "log_odds"), "forest": ("trees", "probability"),
    "forest, weighted, after an imputer": ("trees", "probability"), "gradient boosting": ("trees", "log_odds"),
    "histogram boosting, scaled": ("trees", "log_odds"), "category by number, ordinal": ("trees", "probability"),
    "category by name, searched": ("trees", "probability"), "ridge": ("additive", "value"), "least squares": ("additive", "value"),
    "poisson": ("additive", "log"), "tree of values": ("trees", "value"), "histogram boosting, gamma, by name": ("trees", "log"),
    "histogram boosting of values": ("trees", "value"),
}  # fmt: skip
SAMPLED = ["network", "votes", "stack of values"]
BACKGROUND = 3


def made_of(name: str) -> Version:
    """A version of a pipeline of the zoo."""
    return version_of({**CLASSIFIERS, **REGRESSORS}[name], classes=name in CLASSIFIERS)


def version_of(pipeline: Callable[[], Any], *, classes: bool) -> Version:
    """A version of a pipeline, on the rows of the zoo."""
    labels = (np.median(TRUTH) < TRUTH).astype(np.float64) if classes else np.exp(TRUTH / 4 + 1)
    with threadpool_limits(1):
        return make_version(dataclasses.replace(MODEL, pipeline=pipeline), training_set(ROWS, labels), 0, lambda _: None)


def explainer_of(version: Version, background: int | None = BACKGROUND) -> tuple[Explainer, Recipe]:
    """What explains a version, from its stored file; with few background rows, so that the definition can be computed."""
    manifest = version.artifact.manifest
    recipe = unpacked("v", version.beside[FILE])
    if background is not None:
        recipe = dataclasses.replace(recipe, background=recipe.background[:background])
    return Explainer([item.name for item in manifest.inputs], scale_of(manifest.output), load_engine(version.artifact), recipe), recipe


def margins_of(version: Version, scale: str, rows: np.ndarray) -> np.ndarray:
    """What the fitted pipeline says of rows, on a scale, in double precision where it has that."""
    pipeline, given = version.fitted.pipeline, version.fitted.given(rows)
    if scale == "log_odds":
        found = pipeline.decision_function(given) if hasattr(pipeline, "decision_function") else logit(pipeline.predict_proba(given)[:, 1])
    elif scale == "probability":
        found = pipeline.predict_proba(given)[:, 1]
    else:
        found = pipeline.predict(given)
    return np.asarray(np.log(found) if scale == "log" else found, np.float64)


def logit(probabilities: Any) -> Any:
    """Log odds."""
    wide = np.asarray(probabilities, np.float64)
    return np.log(wide) - np.log1p(-wide)


def check(version: Version, scale: str, rows: np.ndarray) -> None:
    """Compares explanations with the definition."""
    explainer, recipe = explainer_of(version)
    spread = float(np.ptp(margins_of(version, scale, version.fitted.holdout.matrix))) or 1.0
    for row in rows:
        found = explainer.explain(row)
        base, values = shapley(lambda some: margins_of(version, scale, some), row, recipe.background)
        assert (found.method, found.scale) == (recipe.method, scale)
        assert found.base == pytest.approx(base, abs=2e-5 * spread)
        assert [found.contributions[name] for name in explainer.names] == pytest.approx(values, abs=2e-5 * spread)
        assert found.answer == pytest.approx(float(margins_of(version, scale, row[None])[0]), abs=1e-4 * spread)
        assert found.answer - found.base == pytest.approx(sum(found.contributions.values()), abs=1e-9 * spread)
        assert list(map(abs, found.contributions.values())) == sorted(map(abs, found.contributions.values()), reverse=True)


@pytest.mark.parametrize("name", EXACT)
def test_exact_explanations_are_those_of_the_definition(name: str) -> None:
    """Trees, linear models and their like: known rows, and one with an unknown text and missing numbers."""
    version = made_of(name)
    method, scale = EXACT[name]
    assert explainer_of(version)[1].method == method
    odd = version.fitted.holdout.matrix[2].copy()
    odd[MODEL.input_names.index("payment")] = len(version.fitted.holdout.inputs[MODEL.input_names.index("payment")].categories) - 1
    odd[:4] = np.nan
    check(version, scale, np.array([version.fitted.holdout.matrix[0], odd]))


@pytest.mark.parametrize(("library", "kind", "scale"), [
    ("lightgbm", "Classifier", "log_odds"), ("lightgbm", "Regressor", "value"), ("xgboost", "Classifier", "log_odds"),
    ("xgboost", "Regressor", "value"), ("catboost", "Classifier", "log_odds"),
])  # fmt: skip
def test_boosting_libraries(library: str, kind: str, scale: str) -> None:
    """Their trees alone, and after an encoder of a text."""
    classes = kind == "Classifier"
    for pipeline in (lambda: boosted(library, kind), lambda: named(boosted(library, kind))):
        version = version_of(pipeline, classes=classes)
        assert explainer_of(version)[1].method == "trees"
        check(version, scale, version.fitted.holdout.matrix[:1])


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_explanations_are_near_the_definition(name: str) -> None:
    """They add up, are the same every time, and lie within some standard errors of the exact values."""
    version = made_of(name)
    explainer, recipe = explainer_of(version, None)
    scale = version.artifact.manifest.output
    row = version.fitted.holdout.matrix[0]
    found = explainer.explain(row)
    base, values = shapley(load_engine(version.artifact).predict_rows, row, recipe.background[:32])
    assert found.method == "sampled"
    assert found.scale == scale
    assert found.standard_error is not None
    assert found.base == pytest.approx(base, rel=1e-5)
    assert found.answer == pytest.approx(load_engine(version.artifact).predict(row), rel=1e-5)
    errors = np.array([found.standard_error[name] for name in explainer.names])
    apart = np.abs(np.array([found.contributions[name] for name in explainer.names]) - values)
    assert (apart <= 4 * errors + 1e-6).all()
    assert errors.max() > 0
    assert explainer.explain(row) == found


def test_several_classes_are_explained_by_the_answered_one() -> None:
    """The contributions are to the probability of the class that is answered, by sampling."""
    with threadpool_limits(1):
        version = make_version(dataclasses.replace(MODEL, pipeline=SEVERAL["logistic regression"]), three(), 0, lambda _: None)
    explainer, recipe = explainer_of(version, None)
    engine, told = load_engine(version.artifact), set()
    for row in version.fitted.holdout.matrix[:6]:
        found, answer = explainer.explain(row), engine.answer(row)
        place = list(answer.probabilities).index(chosen(answer.probabilities))
        told.add(found.of_class)
        assert (found.method, found.scale, found.of_class) == ("sampled", "probability", chosen(answer.probabilities))
        assert found.answer == pytest.approx(answer.output, abs=1e-6)
        assert found.base == pytest.approx(engine.predict_rows(recipe.background, place).mean(), abs=1e-6)
        assert found.answer - found.base == pytest.approx(sum(found.contributions.values()))
    assert len(told) > 1
    assert sum(version.artifact.manifest.feature_importance.values()) == pytest.approx(1)


@cache
def forest() -> Version:
    """A forest without other steps."""
    return version_of(lambda: RandomForestClassifier(20, max_depth=6, random_state=0), classes=True)


@pytest.mark.parametrize("name", ["forest", "tree of values", "histogram boosting", "lightgbm", "xgboost"])
def test_trees_are_explained_as_the_package_shap_does(name: str) -> None:
    """The same background, the same values."""
    shap = pytest.importorskip("shap")
    if name in ("lightgbm", "xgboost"):
        version = version_of(lambda: boosted(name, "Classifier"), classes=True)
    else:
        version = forest() if name == "forest" else made_of(name)
    explainer, recipe = explainer_of(version, None)
    rows = version.fitted.holdout.matrix[~np.isnan(version.fitted.holdout.matrix).any(axis=1)][:5]
    background = np.nan_to_num(recipe.background)
    explainer = Explainer(
        explainer.names,
        scale_of(version.artifact.manifest.output),
        load_engine(version.artifact),
        dataclasses.replace(recipe, background=background),
    )
    theirs = np.asarray(shap.TreeExplainer(version.fitted.pipeline, background).shap_values(rows, check_additivity=False))
    theirs = theirs[:, :, 1] if theirs.ndim == 3 else theirs
    for row, values in zip(rows, theirs, strict=True):
        assert [explainer.explain(row).contributions[name] for name in explainer.names] == pytest.approx(values.tolist(), abs=1e-5)


def test_importance_and_bytes_of_a_version() -> None:
    """The manifest has the share of each input, the inputs that count have the most, and the same training makes the same file."""
    version = forest()
    importance = version.artifact.manifest.feature_importance
    assert sum(importance.values()) == pytest.approx(1)
    assert list(importance) == MODEL.input_names
    assert set(sorted(importance, key=lambda name: -importance[name])[:2]) == {MODEL.input_names[0], "payment"}
    again = version_of(lambda: RandomForestClassifier(20, max_depth=6, random_state=0), classes=True)
    assert again.beside == version.beside
    assert again.artifact.manifest.explanation_sha256 == version.artifact.manifest.explanation_sha256


def test_a_column_that_changes_for_the_first_time_is_sampled() -> None:
    """A recipe that takes a column for a constant does not explain rows where it is none by its trees."""
    version = made_of("category by name, searched")
    explainer, recipe = explainer_of(version, None)
    assert recipe.owners is not None
    text = MODEL.input_names.index("payment")
    blind = dataclasses.replace(recipe, owners=np.where(recipe.owners == text, -1, recipe.owners), background=recipe.background.copy())
    blind.background[:, text] = 0
    made = Explainer(explainer.names, "probability", load_engine(version.artifact), blind)
    row = version.fitted.holdout.matrix[0].copy()
    row[text] = 0
    assert made.explain(row).method == "trees"
    row[text] = 1
    assert made.explain(row).method == "sampled"
