"""From windows of predictions and results to findings: what is compared for a model version, and at which level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tidemill.histograms import count
from tidemill.models import Manifest
from tidemill.records import PredictionRecord, ResultRecord
from tidemill_drift.compare import (
    Finding,
    Floats,
    compare_auc,
    compare_calibration,
    compare_distribution,
    compare_error,
    compare_missing,
)

LEAST_ROWS = 200


def compare_predictions(manifest: Manifest, predictions: Sequence[PredictionRecord], budget: float) -> Iterator[Finding]:
    """Each input and the output of a window against training. `budget`: chance that a stationary window raises anything at all."""
    if len(predictions) < LEAST_ROWS:
        return
    level = budget / (2 * len(manifest.inputs) + 1)
    inputs = np.array([prediction.inputs for prediction in predictions], dtype=np.float64)
    for i, spec in enumerate(manifest.inputs):
        reference = manifest.reference[spec.name]
        current = count(reference.edges, inputs[:, i])
        yield from _present(
            compare_distribution("feature_drift", spec.name, reference, current, level),
            compare_missing(spec.name, reference, current, level),
        )
    reference = manifest.reference["prediction"]
    current = count(reference.edges, np.array([prediction.output for prediction in predictions]))
    yield from _present(compare_distribution("prediction_drift", "prediction", reference, current, level))


def compare_results(manifest: Manifest, results: Sequence[ResultRecord], budget: float) -> Iterator[Finding]:
    """Performance on the joined results of a window against the holdout of training."""
    joined = [result for result in results if result.outcome is not None]
    if len(joined) < LEAST_ROWS:
        return
    labels: Floats = np.array([result.outcome for result in joined], dtype=np.float64)
    outputs: Floats = np.array([result.output for result in joined], dtype=np.float64)
    metrics = manifest.metrics
    if manifest.output == "probability":
        yield from _present(
            compare_auc(labels, outputs, metrics["auc"], metrics["auc_error"], budget / 2), compare_calibration(labels, outputs, budget / 2)
        )
    else:
        yield from _present(compare_error(labels, outputs, metrics["mae"], budget))


def _present(*findings: Finding | None) -> Iterator[Finding]:
    yield from (finding for finding in findings if finding is not None)
