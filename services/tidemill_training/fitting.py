"""From a training set to a model: holdout by time, fit, conversion to ONNX, and the proof that both compute the same."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, mean_squared_error

from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import Parity
from tidemill.models.engine import Engine
from tidemill.stats.roc import auc_with_error
from tidemill_training.dataset import Floats, TrainingSet

HOLDOUT = 0.2
FEWEST_ROWS = 10
PARITY_ROWS = 2_000
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline, whether it gives probabilities, its metrics on the holdout, and what it predicted there."""

    pipeline: Any
    probability: bool
    metrics: dict[str, float]
    holdout: TrainingSet
    holdout_output: Floats


def fit(model: Model, examples: TrainingSet) -> Fitted:
    """Fits on the first 80 % of time for the metrics, then on everything for the model. Raises TidemillError for unusable labels or columns."""
    cut = int(len(examples) * (1 - HOLDOUT))
    before, after = _rows(examples, slice(None, cut)), _rows(examples, slice(cut, None))
    probability = _is_classifier(model)
    _check_labels(model, before, after, probability=probability)
    pipeline = _fitted(model, before)
    output = outputs(pipeline, after.matrix, probability=probability)
    metrics = score(after.labels, output, probability=probability) | {"examples": float(len(examples))}
    return Fitted(_fitted(model, examples), probability, metrics, after, output)


def _is_classifier(model: Model) -> bool:
    try:
        return bool(is_classifier(model.pipeline()))
    except Exception as error:  # the project's own code
        raise TidemillError(
            f"model {model.name!r}: its pipeline cannot be made: {type(error).__name__}: {error}",
            mend="return a scikit-learn classifier or regressor from the function given as pipeline",
        ) from error


def _check_labels(model: Model, before: TrainingSet, after: TrainingSet, *, probability: bool) -> None:
    count = len(before) + len(after)
    if count < FEWEST_ROWS:
        raise TidemillError(
            f"model {model.name!r}: {count} examples are too few to fit and to hold some out; {FEWEST_ROWS} are the least",
            mend="collect more outcomes",
        )
    if not probability:
        return
    if not np.isin(np.concatenate([before.labels, after.labels]), (0.0, 1.0)).all():
        raise TidemillError(
            f"model {model.name!r}: a classifier needs an outcome that is true or false, but {model.outcome.value!r} gives numbers",
            mend='write a condition such as "delay > 15", or use a regressor',
        )
    if any(min(np.sum(part.labels == 0.0), np.sum(part.labels == 1.0)) < 2 for part in (before, after)):  # an AUC needs two of each
        raise TidemillError(
            f"model {model.name!r}: {count} examples do not show both outcomes twice before and after the holdout's start",
            mend="collect more outcomes, or check the outcome's condition",
        )


def _fitted(model: Model, examples: TrainingSet) -> Any:
    """A new pipeline, fitted. Columns without any value are named when it fails: few estimators say that they cannot take them."""
    try:
        return model.pipeline().fit(examples.matrix, examples.labels)
    except Exception as error:  # the project's own code, and whatever scikit-learn raises for its data
        empty = [spec.name for i, spec in enumerate(examples.inputs) if np.isnan(examples.matrix[:, i]).all()]
        reason = f"model {model.name!r}: fitting its pipeline to {len(examples)} rows failed: {type(error).__name__}: {error}"
        if empty:
            raise TidemillError(
                f"{reason} (no row has a value of {', '.join(empty)})",
                mend="see that their events arrive, leave these inputs out, or begin the pipeline with SimpleImputer(keep_empty_features=True)",
            ) from error
        raise TidemillError(reason, mend="see that the pipeline takes one float32 matrix with NaN where there is no value") from error


def outputs(pipeline: Any, matrix: Floats, *, probability: bool) -> Floats:
    """What the model answers for each row: probability of the outcome, or its value."""
    raw = pipeline.predict_proba(matrix)[:, 1] if probability else pipeline.predict(matrix)
    return np.asarray(raw, dtype=np.float32)


def score(labels: Any, output: Floats, *, probability: bool) -> dict[str, float]:
    """Quality on held-out rows: auc, log_loss and brier for a probability, mae with its standard error and rmse for a value."""
    if probability:
        auc, error = auc_with_error(np.asarray(labels), output)
        clipped = np.clip(output.astype(np.float64), 1e-7, 1 - 1e-7)
        return {
            "auc": auc,
            "auc_error": error,
            "log_loss": float(log_loss(labels, clipped)),
            "brier": float(brier_score_loss(labels, clipped)),
            "positive_share": float(np.mean(labels)),
        }
    mae, rmse = float(mean_absolute_error(labels, output)), float(mean_squared_error(labels, output) ** 0.5)
    return {"mae": mae, "mae_error": (max(rmse**2 - mae**2, 0.0) / len(output)) ** 0.5, "rmse": rmse}


def to_onnx(pipeline: Any, columns: int, *, probability: bool) -> bytes:
    """The pipeline as ONNX: one float32 input `features` of shape (rows, columns). Raises TidemillError when it cannot be converted."""
    from skl2onnx import to_onnx as convert  # noqa: PLC0415 - heavy, and only needed here
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    options = {id(pipeline): {"zipmap": False}} if probability else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of onnx and protobuf: nothing a project could mend
            converted = convert(pipeline, initial_types=[("features", FloatTensorType([None, columns]))], options=options)
    except Exception as error:  # skl2onnx raises classes of its own without a common root, and those of what it calls
        raise TidemillError(
            f"skl2onnx cannot convert {type(pipeline).__name__}: {type(error).__name__}: {str(error).strip()[:500]}",
            mend="use estimators that skl2onnx supports; functions of one's own have no ONNX twin",
        ) from error
    return bytes(converted.SerializeToString())


def check_parity(fitted: Fitted, engine: Engine) -> Parity:
    """Largest difference between scikit-learn and ONNX on up to 2,000 held-out rows. Raises TidemillError beyond the tolerance."""
    rows = fitted.holdout.matrix
    sample = rows[:: max(1, len(rows) // PARITY_ROWS)][:PARITY_ROWS]
    expected = outputs(fitted.pipeline, sample, probability=fitted.probability)
    got = np.array([engine.predict(row) for row in sample], dtype=np.float32)
    worst = float(np.max(np.abs(expected - got)))
    if not worst <= TOLERANCE:
        raise TidemillError(
            f"ONNX and scikit-learn differ by {worst:.2g} on {len(sample)} rows; {TOLERANCE:g} is allowed",
            mend="use a pipeline whose steps skl2onnx converts exactly; inputs are float32, so round thresholds or scale values",
        )
    return Parity(worst, len(sample), TOLERANCE)


def _rows(examples: TrainingSet, part: slice) -> TrainingSet:
    return TrainingSet(examples.matrix[part], examples.labels[part], examples.times_ms[part], examples.subjects[part], examples.inputs)
