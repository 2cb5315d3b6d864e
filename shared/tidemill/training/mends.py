"""What mends a pipeline that cannot be served, by its step. Each mend is tried by a test."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_clusterer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from tidemill.training.prepared import takes_texts
from tidemill.training.steps import Step

_NUMBERS = "SimpleImputer(strategy='constant', fill_value=-1)"
WORDS_MEND = "declare the text as Words(name), or take it as a category: OneHotEncoder(handle_unknown='ignore')"
"""For a step that takes the words of a text."""
OWN_PIPELINE_MEND = 'or let the pipeline serve itself, slower: tm.Model(..., engine="python")'
"""For what ONNX cannot serve, beside another mend."""
_WITHOUT = "leave this step out"
_NO_CATEGORIES = "leave categorical_features out: the category's number is cut like any other"
_INSTEAD = {
    "HashingVectorizer": "use a TfidfVectorizer",
    "IterativeImputer": "use a SimpleImputer",
    "KNNImputer": "use a SimpleImputer",
    "LinearDiscriminantAnalysis": "use LogisticRegression",
    "MissingIndicator": "leave this step out: trees see what is missing, and a SimpleImputer with a value that does not occur shows it",
    "SplineTransformer": "use KBinsDiscretizer or PolynomialFeatures",
    "TransformedTargetRegressor": "use its regressor alone, or one with a loss for such amounts: HistGradientBoostingRegressor(loss='gamma')",
}


DICT_MEND = "see that the pipeline takes a dict of named values, in which a missing one is left out, and texts are texts: select them with compose.SelectType(str)"


def fit_mend(step: Step, error: Exception) -> str:
    """What to do about a step that cannot be fitted."""
    if "contains NaN" in str(error):
        return f"put {_NUMBERS} before it"
    if "class_weight" in str(error):
        return "name the classes by their places: 0 is the first, 1 the second, or give class_weight='balanced'"
    if takes_words(step.estimator) or any(map(takes_words, _parts(step.estimator))):
        return 'declare the text as Words("note"), and choose it by its name, not in a list: ("words", TfidfVectorizer(), "note")'
    if "string to float" in str(error):
        return "choose its columns before it: make_pipeline(make_column_transformer(...), ...), with an encoder for the texts"
    return "see that the pipeline takes a float32 matrix with NaN where there is no value, or chooses columns of a data frame by name"


def takes_words(estimator: Any) -> bool:
    """Whether a step finds the words of texts."""
    return type(estimator).__name__.endswith("Vectorizer") and hasattr(estimator, "build_analyzer")


def _parts(estimator: Any) -> list[Any]:
    """The first step of each part of an unfitted column transformer."""
    parts = [part for _, part, _ in getattr(estimator, "transformers", ())]
    return [part.steps[0][1] if isinstance(part, Pipeline) else part for part in parts]


def rows_mend(step: Step, error: Exception) -> str:
    """What to do about a step that fails on rows that requests will bring."""
    kind = type(step.estimator).__name__
    if kind in ("OneHotEncoder", "OrdinalEncoder"):
        return _encoder_mend(step)
    return f"put {_NUMBERS} before it" if "contains NaN" in str(error) else _instead(step)


def convert_mend(step: Step, error: Exception) -> str:
    """What to do about a step that skl2onnx cannot convert."""
    kind = type(step.estimator).__name__
    if kind in ("OneHotEncoder", "OrdinalEncoder"):
        infrequent = "nfrequent" in str(error)
        return "leave min_frequency and max_categories out" if infrequent else _encoder_mend(step)
    if kind == "CalibratedClassifierCV":
        return _calibration_mend(step)
    if kind.startswith(("LGBM", "XGB")) and not is_installed("onnxmltools"):
        return "pip install 'tidemill[boosting]'"
    return _instead(step)


def differ_mend(step: Step) -> str:
    """What to do about a step that ONNX computes in another way, or not at all, on its rows."""
    kind = type(step.estimator).__name__
    if kind == "CalibratedClassifierCV":
        return _calibration_mend(step)
    if isinstance(step.estimator, SimpleImputer):
        return "give it keep_empty_features=True, and leave add_indicator out"
    if kind in ("OneHotEncoder", "OrdinalEncoder"):
        return _encoder_mend(step)
    if getattr(step.estimator, "is_categorical_", None) is not None:
        return _NO_CATEGORIES
    return f"put {_NUMBERS} before it" if _misses_values(step) and kind not in _INSTEAD else _instead(step)


def threshold_mend(step: Step | None) -> str:
    """What to do about a step whose numbers are not those of scikit-learn to the last bit, when too many rows lie on thresholds."""
    if step is None or not step.path:
        return "train on more rows"
    if hasattr(step.rows, "toarray"):  # of the terms of a text, which trees cannot do without
        return "end with a model without thresholds, such as LogisticRegression or Ridge, or train on more rows"
    return f"{_WITHOUT}, since trees need no scaling, or train on more rows"


def probability_mend(step: Step) -> str:
    """What to do about a classifier that gives no probabilities."""
    kind = type(step.estimator).__name__
    if kind == "VotingClassifier":
        return "give it voting='soft'"
    return f"wrap it: CalibratedClassifierCV({kind}(...)), from sklearn.calibration"


def _calibration_mend(step: Step) -> str:
    if step.estimator.method != "sigmoid":
        return "give it method='sigmoid', or leave the calibration out"
    if hasattr(step.estimator.estimator, "steps"):
        return "calibrate inside the pipeline: make_pipeline(..., CalibratedClassifierCV(...)) with a classifier alone in it"
    return "leave the calibration out"


def _misses_values(step: Step) -> bool:
    try:
        return bool(np.isnan(np.asarray(step.rows, dtype=np.float64)).any())
    except (TypeError, ValueError):  # texts, sparse rows, or none
        return False


def is_installed(package: str) -> bool:
    """Whether a package can be imported here."""
    return find_spec(package) is not None


def _encoder_mend(step: Step) -> str:
    kind = type(step.estimator).__name__
    if takes_texts(step.estimator):
        options = "handle_unknown='use_encoded_value', unknown_value=-1, encoded_missing_value=-2"
        return f"give it {'handle_unknown=' + repr('ignore') if kind == 'OneHotEncoder' else options}"
    option = "handle_unknown='ignore'" if kind == "OneHotEncoder" else "handle_unknown='use_encoded_value', unknown_value=-2"
    return f"write make_pipeline({_NUMBERS}, {kind}({option})) in its place"


def _instead(step: Step) -> str:
    kind = type(step.estimator).__name__
    if kind in _INSTEAD:
        return _INSTEAD[kind]
    if is_clusterer(step.estimator) or (hasattr(step.estimator, "transform") and not hasattr(step.estimator, "predict")):
        return f"{_WITHOUT}, or do its work in a feature or in what the request sends"
    others = [_linear(step), "HistGradientBoostingClassifier" if is_classifier(step.estimator) else "HistGradientBoostingRegressor"]
    return f"use another estimator, such as {' or '.join(other for other in others if other != kind)}"


def _linear(step: Step) -> str:
    return "LogisticRegression" if is_classifier(step.estimator) else "Ridge"
