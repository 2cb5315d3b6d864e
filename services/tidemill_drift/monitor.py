"""From windows of predictions and results to findings: what is compared for a model version, and at which level."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.declarations.models import class_name
from tidemill.errors import ArtifactError, anew
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
from tidemill_drift.compare_classes import compare_accuracy, compare_frequency, compare_log_loss, compare_unknown

LEAST_ROWS = 200


class PredictionRow(NamedTuple):
    """What is compared of a prediction: the model's input vector (float32, NaN where missing), its output, and the answered class if it has
    several."""

    inputs: npt.NDArray[np.float32]
    output: float
    chosen: str | None = None


class ResultRow(NamedTuple):
    """What is compared of a joined result."""

    output: float
    outcome: float | str
    probabilities: Mapping[str, float] = {}


def level(manifest: Manifest, budget: float) -> float:
    """The level of each comparison of a window: its distribution and share missing per input, one for the output, two for performance. Of
    several classes three for performance, and one for each class.

    `budget`: chance that a stationary window raises anything at all (Bonferroni).
    """
    classes = len(manifest.class_names)
    return budget / (2 * len(manifest.inputs) + 3 + (classes + 1 if classes else 0))


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
    reference, classes = manifest.reference["prediction"], manifest.class_names
    outputs = (
        [float(classes.index(row.chosen)) if row.chosen in classes else math.nan for row in rows]
        if classes
        else [row.output for row in rows]
    )
    current = count(reference.edges, np.array(outputs))
    yield from _present(compare_distribution("prediction_drift", "prediction", reference, current, each, classes))


def compare_results(manifest: Manifest, rows: Sequence[ResultRow], budget: float) -> Iterator[Finding]:
    """Performance on the joined results of a window against the holdout of training. Raises ArtifactError when the outcome was a number when the
    version was trained, and is a text now."""
    if len(rows) < LEAST_ROWS:
        return
    metrics, each = manifest.metrics, level(manifest, budget)
    if manifest.output == "probabilities":
        yield from _compare_several(manifest, rows, each)
        return
    if texts := sum(isinstance(row.outcome, str) for row in rows):
        raise ArtifactError(
            f"{texts} of {len(rows)} outcomes are texts, and {manifest.model} {manifest.version} answers with a {manifest.output}",
            mend=anew(manifest.model),
        )
    outputs, labels = np.array([(row.output, row.outcome) for row in rows], dtype=np.float64).T
    if manifest.output == "probability":
        scores = outputs.clip(0, 1)
        yield from _present(
            compare_auc(labels, scores, metrics["auc"], metrics["auc_error"], each), compare_calibration(labels, scores, each)
        )
    else:
        yield from _present(compare_error(labels, outputs, metrics["mae"], metrics.get("mae_error", 0.0), each))


def _compare_several(manifest: Manifest, rows: Sequence[ResultRow], each: float) -> Iterator[Finding]:
    """Of several classes: those that the model never saw; accuracy, for which these count as wrong; and, of all others, log loss and how often
    each class is."""
    classes, metrics = manifest.class_names, manifest.metrics
    places = np.array([classes.index(name) if (name := class_name(row.outcome)) in classes else -1 for row in rows])
    probabilities = np.array([[row.probabilities.get(name, 0.0) for name in classes] for row in rows], dtype=np.float64)
    unknown = Counter(class_name(row.outcome) for row, place in zip(rows, places, strict=True) if place < 0)
    yield from _present(
        compare_unknown(unknown, len(rows), manifest.rows, each),
        compare_accuracy(places, probabilities, metrics["accuracy"], metrics["accuracy_error"], each),
    )
    known, got = places[places >= 0], probabilities[places >= 0]
    if len(known) < LEAST_ROWS:
        return
    yield from _present(compare_log_loss(known, got, metrics["log_loss"], metrics["log_loss_error"], each))
    yield from (compare_frequency(name, known == place, got[:, place], each) for place, name in enumerate(classes))


def _present(*findings: Finding | None) -> Iterator[Finding]:
    yield from (finding for finding in findings if finding is not None)
