"""A fitted pipeline as skl2onnx can convert it: a copy that predicts the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import OneHotEncoder

from tidemill.training.blocks import MISSING_TEXT
from tidemill.training.steps import NOTHING, chosen_columns, searched

Places = Sequence[int] | None
"""For each column of the rows that a part gets, its place among the blocks; None: the part gets a matrix."""


def prepared(estimator: Any, places: Places = None) -> Any:
    """A copy without searches and without options that do not change a prediction; where the pipeline names columns, with their places in
    `places`, and with a text in the place of a missing text."""
    estimator = copy.copy(searched(estimator))
    if isinstance(estimator, Pipeline):
        estimator.steps = _steps(estimator.steps, places)
    elif isinstance(estimator, FeatureUnion):
        estimator.transformer_list = [(name, prepared(step, places)) for name, step in estimator.transformer_list]
    elif isinstance(estimator, ColumnTransformer):
        estimator.transformers_ = [
            (name, prepared(step), _places(estimator, columns, places)) for name, step, columns in estimator.transformers_
        ]
    if hasattr(estimator, "flatten_transform"):
        estimator.flatten_transform = False
    if isinstance(estimator, OneHotEncoder) and estimator.min_frequency is None and estimator.max_categories is None:
        estimator.handle_unknown = "error" if estimator.handle_unknown == "error" else "ignore"  # a warning is no answer
    if isinstance(getattr(estimator, "weights", None), list):  # of votes
        estimator.weights = np.asarray(estimator.weights)
    if getattr(estimator, "encode", None) == "onehot":  # of KBinsDiscretizer: sparse
        estimator.encode = "onehot-dense"
    if isinstance(found := getattr(estimator, "estimators_", None), list):  # of votes and stacks
        estimator.estimators_ = [prepared(part, places) for part in found]
    if hasattr(estimator, "calibrated_classifiers_"):
        estimator.calibrated_classifiers_ = [_calibrated(part, places) for part in estimator.calibrated_classifiers_]
    return _without_missing_texts(estimator)


def takes_texts(estimator: Any) -> bool:
    """Whether a fitted step alone takes texts."""
    if isinstance(estimator, SimpleImputer):
        return any(isinstance(value, str) for value in estimator.statistics_)
    return any(np.asarray(found).dtype.kind in "OU" for found in getattr(estimator, "categories_", ()))


def _steps(steps: Sequence[tuple[str, Any]], places: Places) -> list[tuple[str, Any]]:
    made = []
    for name, step in steps:
        if step not in NOTHING:
            made.append((name, prepared(step, places)))
            places = None
    return made


def _places(whole: ColumnTransformer, columns: Any, places: Places) -> list[int]:
    chosen = chosen_columns(whole, columns)
    return chosen if places is None else [places[column] for column in chosen]


def _calibrated(part: Any, places: Places) -> Any:
    part = copy.copy(part)
    part.estimator = prepared(part.estimator, places)
    return part


def _without_missing_texts(estimator: Any) -> Any:
    if not takes_texts(estimator):
        return estimator
    if isinstance(estimator, SimpleImputer):
        estimator.missing_values = MISSING_TEXT
    else:
        estimator.categories_ = [_filled(found) for found in estimator.categories_]
    return estimator


def _filled(categories: Any) -> Any:
    missing = [text is None or text != text for text in categories]  # noqa: PLR0124 - NaN
    made = np.asarray(categories, dtype=object).copy()
    made[missing] = _MissingText("nan")
    return made


class _MissingText(float):
    """NaN, by which skl2onnx knows the category of missing texts, and written as what stands for them in the graph."""

    def __str__(self) -> str:
        return MISSING_TEXT
