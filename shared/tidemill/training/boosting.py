"""LightGBM, XGBoost and CatBoost, registered with skl2onnx when a project uses them.

The converters of LightGBM and XGBoost are those of onnxmltools (extra `boosting`); CatBoost writes ONNX itself.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes

_CLASSIFIER = {"nocl": [True, False], "zipmap": [True, False, "columns"], "raw_scores": [True, False]}
_CONVERTERS = "onnxmltools.convert"
_OPSETS = {"": 21, "ai.onnx.ml": 3}  # the newest that these converters take


def boosting_opsets() -> dict[str, int] | None:
    """The versions of ONNX to convert to while one of these libraries is imported; None: skl2onnx chooses.

    A project imports what it uses, so nothing is imported here that it does not use. Without onnxmltools the conversion fails, and its
    error says what to install.
    """
    registered = [_registered(name) for name in _LIBRARIES if name in sys.modules]
    return _OPSETS if any(registered) else None


@cache
def _registered(name: str) -> bool:
    """Whether the converters of a library are registered now."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of onnxmltools: a project cannot mend them
            _LIBRARIES[name]()
    except ImportError:
        return False
    return True


def _register_lightgbm() -> None:
    lightgbm, converters = import_module("lightgbm"), import_module(f"{_CONVERTERS}.lightgbm.operator_converters.LightGbm")
    _register(lightgbm.LGBMClassifier, lightgbm.LGBMRegressor, converters.convert_lightgbm, {"split": None})


def _register_xgboost() -> None:
    xgboost, converters = import_module("xgboost"), import_module(f"{_CONVERTERS}.xgboost.operator_converters.XGBoost")
    _register(xgboost.XGBClassifier, xgboost.XGBRegressor, converters.convert_xgboost, None)


def _register_catboost() -> None:
    catboost = import_module("catboost")
    _register(catboost.CatBoostClassifier, catboost.CatBoostRegressor, _convert_catboost, None, _parse_catboost)


_LIBRARIES: dict[str, Callable[[], None]] = {"lightgbm": _register_lightgbm, "xgboost": _register_xgboost, "catboost": _register_catboost}


def _parse_catboost(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> list[Any]:
    """skl2onnx does not know it as a classifier, which has two outputs."""
    operator = scope.declare_local_operator("BoostingCatBoostClassifier", model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
    operator.outputs.append(scope.declare_local_variable("probabilities", FloatTensorType()))
    return list(operator.outputs)


def _convert_catboost(scope: Any, operator: Any, container: Any) -> None:
    """Takes the node of all trees out of the graph that CatBoost writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trees.onnx"
        operator.raw_operator.save_model(str(path), format="onnx")
        graph = onnx.load(path).graph
    (trees,) = [node for node in graph.node if node.op_type.startswith("TreeEnsemble")]
    container.add_node(
        trees.op_type,
        [operator.inputs[0].full_name],
        [output.full_name for output in operator.outputs],
        op_domain="ai.onnx.ml",
        op_version=3,
        name=scope.get_unique_operator_name("CatBoost"),
        **{attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in trees.attribute},
    )


def _register(classifier: type, regressor: type, convert: Any, options: dict[str, Any] | None, parser: Any = None) -> None:
    shapes = calculate_linear_classifier_output_shapes
    update_registered_converter(classifier, f"Boosting{classifier.__name__}", shapes, convert, options=_CLASSIFIER, parser=parser)
    update_registered_converter(
        regressor, f"Boosting{regressor.__name__}", calculate_linear_regressor_output_shapes, convert, options=options
    )
