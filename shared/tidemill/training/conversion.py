"""From a fitted pipeline to ONNX, by skl2onnx; where its converters are wrong, they are corrected here."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from tidemill.errors import TidemillError
from tidemill.training.boosting import boosting_opsets
from tidemill.training.mends import convert_mend
from tidemill.training.steps import Step, first_that_fails, searched

_TREES = (
    DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor,
    ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor,
)  # fmt: skip
_LOG_LINK = ("poisson", "gamma")


def to_onnx(pipeline: Any, columns: int, *, probability: bool) -> bytes:
    """The pipeline as ONNX: one float32 input `features` of shape (rows, columns).

    Raises TidemillError when it cannot be converted; the error names the step.
    """
    try:
        return _converted(pipeline, [("features", FloatTensorType([None, columns]))], probability=probability)
    except Exception as error:  # the exceptions of skl2onnx have no common root, and it lets those of other libraries through
        failed = first_that_fails(pipeline, None, step_to_onnx)
        step, reason = (failed.step, failed.error) if failed else (Step((), searched(pipeline)), error)
        raise TidemillError(
            f"skl2onnx cannot convert {step.title}: {type(reason).__name__}: {_first_line(reason)}", mend=convert_mend(step, reason)
        ) from error


def step_to_onnx(step: Step) -> bytes:
    """One fitted step alone as ONNX, for rows of floats, or of texts where its categories are texts. Raises what skl2onnx raises."""
    columns = step.estimator.n_features_in_
    texts = any(np.asarray(found).dtype.kind in "OU" for found in getattr(step.estimator, "categories_", ()))
    kind = StringTensorType if texts else FloatTensorType
    return _converted(step.estimator, [("features", kind([None, columns]))], probability=hasattr(step.estimator, "predict_proba"))


def _converted(estimator: Any, inputs: Sequence[tuple[str, Any]], *, probability: bool) -> bytes:
    estimator = _prepared(estimator)
    options: dict[Any, dict[str, Any]] = {StandardScaler: {"div": "div"}}  # as scikit-learn divides: equal to the last bit
    if probability:
        options[id(estimator)] = {"zipmap": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of onnx and protobuf: a project cannot mend them
        made = convert_sklearn(
            estimator,
            initial_types=list(inputs),
            options=options,
            custom_conversion_functions=_CORRECTED,
            target_opset=boosting_opsets(),
        )
    return bytes(made.SerializeToString())


def _prepared(estimator: Any) -> Any:
    """A copy without what keeps skl2onnx from converting an equal model: searches, and options that do not change a prediction."""
    estimator = copy.copy(searched(estimator))
    if isinstance(estimator, Pipeline):
        estimator.steps = [(name, _prepared(step)) for name, step in estimator.steps]
    elif isinstance(estimator, FeatureUnion):
        estimator.transformer_list = [(name, _prepared(step)) for name, step in estimator.transformer_list]
    elif hasattr(estimator, "transformers_"):
        estimator.transformers_ = [(name, _prepared(step), columns) for name, step, columns in estimator.transformers_]
    if hasattr(estimator, "flatten_transform"):
        estimator.flatten_transform = False
    if getattr(estimator, "encode", None) == "onehot":  # of KBinsDiscretizer: sparse
        estimator.encode = "onehot-dense"
    if isinstance(found := getattr(estimator, "estimators_", None), list):  # of votes and stacks
        estimator.estimators_ = [_prepared(part) for part in found]
    if hasattr(estimator, "calibrated_classifiers_"):
        estimator.calibrated_classifiers_ = [_calibrated(part) for part in estimator.calibrated_classifiers_]
    return estimator


def _calibrated(part: Any) -> Any:
    part = copy.copy(part)
    part.estimator = _prepared(part.estimator)
    return part


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


def _converted_trees(scope: Any, operator: Any, container: Any) -> None:
    """Trees send a missing value where scikit-learn learnt to send it; skl2onnx 1.20 sends all of them right."""
    before = len(container.nodes)
    get_converter(operator.type)(scope, operator, container)
    model = operator.raw_operator
    trees = [part.tree_ for part in getattr(model, "estimators_", [model])]
    for node in container.nodes[before:]:
        if node.op_type.startswith("TreeEnsemble"):
            attributes = {attribute.name: attribute for attribute in node.attribute}
            places = zip(attributes["nodes_treeids"].ints, attributes["nodes_nodeids"].ints, strict=True)
            goes = [int(trees[tree].missing_go_to_left[place]) for tree, place in places]
            del attributes["nodes_missing_value_tracks_true"].ints[:]
            attributes["nodes_missing_value_tracks_true"].ints.extend(goes)


def _converted_boosting(scope: Any, operator: Any, container: Any) -> None:
    """A regressor of counts or amounts predicts the exponential of its trees' sum; skl2onnx 1.20 leaves the exponential out."""
    if operator.raw_operator.loss not in _LOG_LINK:
        get_converter(operator.type)(scope, operator, container)
        return
    raw = scope.get_unique_variable_name("raw_sum")
    get_converter(operator.type)(scope, _Elsewhere(operator, raw), container)
    container.add_node("Exp", [raw], [operator.outputs[0].full_name], name=scope.get_unique_operator_name("Exp"))


class _Elsewhere:
    """An operator of skl2onnx whose output has another name."""

    def __init__(self, operator: Any, name: str) -> None:
        self._operator = operator
        self.outputs = [SimpleNamespace(full_name=name, type=operator.outputs[0].type)]
        self.output_full_names = [name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)


_CORRECTED: dict[type, Callable[[Any, Any, Any], None]] = {
    **dict.fromkeys(_TREES, _converted_trees),
    HistGradientBoostingRegressor: _converted_boosting,
}
