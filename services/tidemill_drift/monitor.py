"""From windows of predictions and results to findings: what is compared for a model version, and at which level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.models.artifact import Manifest
from tidemill.stats.histograms import count
from tidemill_drift.compare import (
    Finding,
    compare_auc,
    compare_calibration,
    compare_distribution,
    compare_error,
    compare_missing,
)

LEAST_ROWS = 200


class PredictionRow(NamedTuple):
    """What is compared of a prediction: the model's input vector (float32, NaN where missing) and its output."""

    inputs: npt.NDArray[np.float32]
    output: float


class ResultRow(NamedTuple):
    """What is compared of a joined result."""

    output: float
    outcome: float


def level(manifest: Manifest, budget: float) -> float:
    """The level of each comparison of a window: its distribution and share missing per input, one for the output, two for performance.

    `budget`: chance that a stationary window raises anything at all (Bonferroni).
    """
    return budget / (2 * len(manifest.inputs) + 3)


def compare_predictions(manifest: Manifest, rows: Sequence[PredictionRow], budget: float) -> Iterator[Finding]:
    """Each input and the output of a window against training. Rows of another width than the model has are left out."""
    rows = [row for row in rows if len(row.inputs) == len(manifest.inputs)]
    if len(rows) < LEAST_ROWS:
        return
    each = level(manifest, budget)
    inputs = np.array([row.inputs for row in rows], dtype=np.float64)
    for i, spec in enumerate(manifest.inputs):
        reference = manifest.reference[spec.name]
        current = count(reference.edges, inputs[:, i])
        yield from _present(
            compare_distribution("feature_drift", spec.name, reference, current, each, spec.categories),
            compare_missing(spec.name, reference, current, each),
        )
    reference = manifest.reference["prediction"]
    current = count(reference.edges, np.array([row.output for row in rows]))
    yield from _present(compare_distribution("prediction_drift", "prediction", reference, current, each))


def compare_results(manifest: Manifest, rows: Sequence[ResultRow], budget: float) -> Iterator[Finding]:
    """Performance on the joined results of a window against the holdout of training."""
    if len(rows) < LEAST_ROWS:
        return
    outputs, labels = np.array(rows, dtype=np.float64).T
    metrics, each = manifest.metrics, level(manifest, budget)
    if manifest.output == "probability":
        scores = outputs.clip(0, 1)
        yield from _present(
            compare_auc(labels, scores, metrics["auc"], metrics["auc_error"], each), compare_calibration(labels, scores, each)
        )
    else:
        yield from _present(compare_error(labels, outputs, metrics["mae"], metrics.get("mae_error", 0.0), each))


def _present(*findings: Finding | None) -> Iterator[Finding]:
    yield from (finding for finding in findings if finding is not None)
