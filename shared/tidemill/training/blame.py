"""Which step of a fitted pipeline is to blame for rows that fail, or that ONNX computes in another way."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.models.runner import OnnxRunner
from tidemill.training.blocks import MISSING_TEXT
from tidemill.training.conversion import step_to_onnx
from tidemill.training.steps import Failed, Step, first_that_fails

_TOLERANCE = 1e-4


def failing_step(pipeline: Any, rows: Any) -> Failed | None:
    """The first step that raises on some rows, and what it raises."""
    return first_that_fails(pipeline, rows, _run)


def differing_step(pipeline: Any, rows: Any) -> Step | None:
    """The first step whose ONNX form, alone, gives other values for the rows that reach it, or fails on them."""
    failed = first_that_fails(pipeline, rows, lambda step: _compare(step, _TOLERANCE))
    return failed.step if failed else None


def inexact_step(pipeline: Any, rows: Any) -> Step | None:
    """The first step whose ONNX form, alone, does not give the same bits."""
    failed = first_that_fails(pipeline, rows, lambda step: _compare(step, 0.0))
    return failed.step if failed else None


def _run(step: Step) -> npt.NDArray[Any]:
    """What a step gives for its rows: probabilities, values or new columns."""
    estimator = step.estimator
    call = next(getattr(estimator, name) for name in ("predict_proba", "transform", "predict") if hasattr(estimator, name))
    made = call(step.rows)
    made = np.asarray(made.toarray() if hasattr(made, "toarray") else made)
    made = made.reshape(len(made), -1)
    return made if made.dtype.kind in "OU" else made.astype(np.float32)


def _compare(step: Step, tolerance: float) -> None:
    """Raises when ONNX fails or gives something else."""
    if hasattr(step.estimator, "vocabulary_"):  # its terms are counted as they were
        return
    wanted, runner = _run(step), OnnxRunner("step", step_to_onnx(step))
    found = runner.run({runner.inputs[0].name: _given(step.rows)}, [runner.outputs[-1].name])[0].reshape(len(wanted), -1)
    if found.shape != wanted.shape:
        raise ValueError(f"{found.shape[1]} columns for {wanted.shape[1]}")
    if wanted.dtype.kind in "OU":
        if (found.astype(str) != wanted.astype(str)).any():
            raise ValueError("other texts")
        return
    apart = np.abs(found - wanted) <= tolerance * np.maximum(1.0, np.abs(wanted))
    if not (apart | (np.isnan(found) & np.isnan(wanted))).all():
        raise ValueError("other values")


def _given(rows: Any) -> npt.NDArray[Any]:
    rows = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)
    if rows.dtype.kind not in "OU":
        floats: npt.NDArray[Any] = rows.astype(np.float32)
        return floats
    texts: npt.NDArray[Any] = np.where(rows == rows, rows, MISSING_TEXT).astype(object)  # noqa: PLR0124 - a missing text is NaN
    return texts
