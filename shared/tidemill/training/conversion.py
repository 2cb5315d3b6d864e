"""From a fitted pipeline to ONNX, by skl2onnx; where its converters are wrong, they are corrected here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from skl2onnx import _parse, convert_sklearn
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.base import is_clusterer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelInput
from tidemill.training.blocks import add_front, block_places, block_types
from tidemill.training.blocks_contents import add_contents, plain_types
from tidemill.training.boosting import boosting_opsets
from tidemill.training.frames import check_blocks, names_columns
from tidemill.training.mends import convert_mend, differ_mend, takes_words
from tidemill.training.prepared import prepared, takes_texts
from tidemill.training.steps import Step, first_that_fails, searched, steps_of
from tidemill.training.terms_onnx import FoundRules

_TREES = (
    DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor,
    ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor,
)  # fmt: skip
_LOG_LINK = ("poisson", "gamma")


def to_onnx(pipeline: Any, inputs: int | Sequence[ModelInput], *, probability: bool) -> bytes:
    """The pipeline as ONNX: one float32 input `features` of shape (rows, columns), and one for each content, by its name.

    `inputs`: how many columns there are, or what they are, which a pipeline that names its columns needs. Raises TidemillError when it cannot
    be converted; the error names the step.
    """
    try:
        if not isinstance(inputs, int) and any(spec.is_content for spec in inputs):
            return _with_contents(pipeline, inputs, probability=probability)
        if isinstance(inputs, int) or not names_columns(pipeline):
            columns = inputs if isinstance(inputs, int) else len(inputs)
            return _bytes(_converted(pipeline, [_matrix(columns)], probability=probability))
        check_blocks(pipeline, inputs)
        made = _converted(pipeline, block_types(inputs), block_places(inputs), probability=probability)
        add_front(made, inputs)
        return _bytes(made)
    except TidemillError:
        raise
    except Exception as error:  # the exceptions of skl2onnx have no common root, and it lets those of other libraries through
        failed = first_that_fails(pipeline, None, step_to_onnx)
        step, reason = (failed.step, failed.error) if failed else (Step((), searched(pipeline)), error)
        if failed is None and (dropping := _drops_columns(pipeline)):
            raise TidemillError(
                f"{dropping.title} leaves out columns without any value, and ONNX does not", mend=differ_mend(dropping)
            ) from error
        if failed is None and (between := [one for one in steps_of(pipeline) if is_clusterer(one.estimator)]):
            step = between[0]  # alone it is converted, but as one that predicts
        raise TidemillError(
            f"skl2onnx cannot convert {step.title}: {type(reason).__name__}: {_first_line(reason)}", mend=convert_mend(step, reason)
        ) from error


def _with_contents(pipeline: Any, inputs: Sequence[ModelInput], *, probability: bool) -> bytes:
    """The file of a pipeline that takes contents: by their names, as a single text, or as elements among the columns of a matrix."""
    found = FoundRules()
    if names_columns(pipeline):
        check_blocks(pipeline, inputs)
        made = _converted(pipeline, block_types(inputs), block_places(inputs), probability=probability, rules=found)
    else:
        made = _converted(pipeline, plain_types(inputs), probability=probability, rules=found)
    add_contents(made, inputs, found.rules)
    return _bytes(made)


def _bytes(made: Any) -> bytes:
    """The file of a graph: always the same, though skl2onnx gives the versions of operators in the order of a set."""
    versions = sorted(made.opset_import, key=lambda one: str(one.domain))
    del made.opset_import[:]
    made.opset_import.extend(versions)
    return bytes(made.SerializeToString(deterministic=True))


def step_to_onnx(step: Step) -> bytes:
    """One fitted step alone as ONNX, for rows of floats, or of texts if it takes texts; nothing for one that counts words, which are served
    by rules. Raises what skl2onnx raises."""
    if hasattr(step.estimator, "vocabulary_"):
        return b""
    if takes_words(step.estimator):
        raise ValueError("it has no vocabulary")
    columns = step.estimator.n_features_in_
    kind = ("features", StringTensorType([None, columns])) if takes_texts(step.estimator) else _matrix(columns)
    made = _converted(step.estimator, [kind], probability=hasattr(step.estimator, "predict_proba"))
    return bytes(made.SerializeToString())


def _matrix(columns: int) -> tuple[str, Any]:
    return "features", FloatTensorType([None, columns])


def _converted(
    estimator: Any,
    inputs: Sequence[tuple[str, Any]],
    places: Sequence[int] | None = None,
    *,
    probability: bool,
    rules: FoundRules | None = None,
) -> Any:
    estimator = prepared(estimator, places)
    options: dict[Any, dict[str, Any]] = {StandardScaler: {"div": "div"}}  # as scikit-learn divides: equal to the last bit
    if probability:
        options[id(estimator)] = {"zipmap": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of onnx and protobuf: a project cannot mend them
        return convert_sklearn(
            estimator,
            "model",  # else a random name: one pipeline always gives the same bytes
            initial_types=list(inputs),
            options=options,
            custom_conversion_functions=_CORRECTED | rules.converters if rules else _CORRECTED,
            target_opset=boosting_opsets(),
        )


def _drops_columns(pipeline: Any) -> Step | None:
    """The imputer that leaves out a column without any value, if there is one."""
    for step in steps_of(pipeline):
        imputer = step.estimator
        if isinstance(imputer, SimpleImputer) and not imputer.keep_empty_features and any(found != found for found in imputer.statistics_):  # noqa: PLR0124
            return step
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


def _converted_trees(scope: Any, operator: Any, container: Any) -> None:
    """Trees send a missing value where scikit-learn learnt to send it; skl2onnx 1.20 sends all of them right."""
    before = len(container.nodes)
    get_converter(operator.type)(scope, operator, container)
    model = operator.raw_operator
    goes_left = [part.tree_.missing_go_to_left.tolist() for part in getattr(model, "estimators_", [model])]
    for node in container.nodes[before:]:
        if node.op_type.startswith("TreeEnsemble"):
            attributes = {attribute.name: attribute for attribute in node.attribute}
            places = zip(attributes["nodes_treeids"].ints, attributes["nodes_nodeids"].ints, strict=True)
            goes = [int(goes_left[tree][place]) for tree, place in places]
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


def _columns(scope: Any, inputs: list[Any], columns: Sequence[int]) -> list[Any]:
    """The columns that a transformer chooses, in its order; skl2onnx 1.20 forgets the order where it chooses all of them."""
    if len(inputs) != 1 or len(columns) != inputs[0].type.shape[1] or list(columns) == list(range(len(columns))):
        found: list[Any] = _columns_of_skl2onnx(scope, inputs, columns)
        return found
    operator = scope.declare_local_operator("SklearnArrayFeatureExtractor")
    operator.inputs, operator.column_indices = inputs, columns
    operator.outputs.append(scope.declare_local_variable("chosen_columns", inputs[0].type))
    return list(operator.outputs)


_columns_of_skl2onnx = _parse._fetch_input_slice
_parse._fetch_input_slice = _columns
