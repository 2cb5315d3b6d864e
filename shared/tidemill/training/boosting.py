"""LightGBM and XGBoost: their converters are those of onnxmltools (extra `boosting`), registered with skl2onnx when a project uses them."""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib import import_module
from typing import Any

from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes

_CLASSIFIER = {"nocl": [True, False], "zipmap": [True, False, "columns"], "raw_scores": [True, False]}
_CONVERTERS = "onnxmltools.convert"
_OPSETS = {"": 21, "ai.onnx.ml": 3}  # the newest that these converters take


def boosting_opsets() -> dict[str, int] | None:
    """The versions of ONNX to convert to while LightGBM or XGBoost is imported; None: skl2onnx chooses.

    A project imports what it uses, so nothing is imported here that it does not use. Without onnxmltools the conversion fails, and its
    error says what to install.
    """
    registered = [_registered(name) for name in ("lightgbm", "xgboost") if name in sys.modules]
    return _OPSETS if any(registered) else None


@cache
def _registered(name: str) -> bool:
    """Whether the converters of a library are registered now."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of onnxmltools: a project cannot mend them
            (_register_lightgbm if name == "lightgbm" else _register_xgboost)()
    except ImportError:
        return False
    return True


def _register_lightgbm() -> None:
    lightgbm, converters = import_module("lightgbm"), import_module(f"{_CONVERTERS}.lightgbm.operator_converters.LightGbm")
    _register(lightgbm.LGBMClassifier, lightgbm.LGBMRegressor, converters.convert_lightgbm, {"split": None})


def _register_xgboost() -> None:
    xgboost, converters = import_module("xgboost"), import_module(f"{_CONVERTERS}.xgboost.operator_converters.XGBoost")
    _register(xgboost.XGBClassifier, xgboost.XGBRegressor, converters.convert_xgboost, None)


def _register(classifier: type, regressor: type, convert: Any, options: dict[str, Any] | None) -> None:
    shapes = calculate_linear_classifier_output_shapes
    update_registered_converter(classifier, f"Boosting{classifier.__name__}", shapes, convert, options=_CLASSIFIER)
    update_registered_converter(
        regressor, f"Boosting{regressor.__name__}", calculate_linear_regressor_output_shapes, convert, options=options
    )
