"""From windows of predictions and results to findings: what is compared for a model version, and at which level."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.declarations.models import class_name
from tidemill.errors import ArtifactError, anew
from tidemill.models.artifact import Manifest, ModelInput
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.stats.histograms import Histogram, count
from tidemill.streams.alert_board import UNSEEN
from tidemill_drift.compare import (
    HELD_OUT,
    MISSING_OR_UNSEEN,
    TRAINING,
    Finding,
    Floats,
    Share,
    compare_distribution,
    compare_missing,
)
from tidemill_drift.compare_classes import compare_accuracy, compare_frequency, compare_log_loss, compare_unknown
from tidemill_drift.performance import HeldAuc, HeldMean, compare_auc, compare_calibration, compare_growth

LEAST_ROWS = 200


class PredictionRow(NamedTuple):
    """What is compared of a prediction: the model's input vector (float32, NaN where missing), its output, and the answered class if it has
    several. `texts`: the values of the request that are texts: what is NaN among them was never seen in training."""

    inputs: npt.NDArray[np.float32]
    output: float
    chosen: str | None = None
    texts: frozenset[str] = frozenset()


class ResultRow(NamedTuple):
    """What is compared of a joined result."""

    output: float
    outcome: float | str
    probabilities: Mapping[str, float] = {}


def comparisons(manifest: Manifest) -> int:
    """How many comparisons a window of a version has: its distribution and share missing per input, the share never seen per category, one
    for the output, two for performance. Of several classes three for performance, and one for each class."""
    classes = len(manifest.class_names)
    categories = sum(spec.is_category for spec in manifest.inputs)
    return 2 * len(manifest.inputs) + categories + 3 + (classes + 1 if classes else 0)


def level(manifest: Manifest, budget: float, versions: int = 1) -> float:
    """The level of each comparison of a window.

    `budget`: chance that a stationary window raises anything at all (Bonferroni); `versions`: how many versions, of all models, have rows in it.
    """
    return budget / (comparisons(manifest) * versions)


def compare_predictions(manifest: Manifest, rows: Sequence[PredictionRow], budget: float, versions: int = 1) -> Iterator[Finding]:
    """Each input and the output of a window against training. Rows of another width than the model has are left out."""
    rows = [row for row in rows if len(row.inputs) == len(manifest.inputs)]
    if len(rows) < LEAST_ROWS:
        return
    each = level(manifest, budget, versions)
    inputs = np.array([row.inputs for row in rows], dtype=np.float64)
    for i, spec in enumerate(manifest.inputs):
        reference = manifest.reference[spec.name]
        now = _counted(spec, reference, inputs[:, i], [spec.name in row.texts for row in rows] if spec.is_category else [])
        of = HELD_OUT if reference.rows < manifest.rows else TRAINING
        for found in _present(
            compare_distribution("feature_drift", spec.name, *_of_texts(spec, reference, now), level=each, categories=spec.categories),
            *_shares(spec, reference, now, each),
        ):
            yield replace(found, of=of)
    reference, classes = manifest.reference["prediction"], manifest.class_names
    outputs = (
        [float(classes.index(row.chosen)) if row.chosen in classes else math.nan for row in rows]
        if classes
        else [row.output for row in rows]
    )
    yield from _present(
        compare_distribution("prediction_drift", "prediction", reference, count(reference.edges, np.array(outputs)), each, classes)
    )


def _tells_apart(spec: ModelInput) -> bool:
    """Whether a text that was not there in training can be told from a missing one: it has a number of its own, or it is in the request."""
    return spec.kind == "category" or UNKNOWN_TEXT in spec.categories


def _counted(spec: ModelInput, reference: Histogram, values: Floats, given: Sequence[bool]) -> Histogram:
    """The histogram of a window; of a category `unseen` are those that were not there in training, which count as neither known nor missing."""
    if not spec.is_category:
        return count(reference.edges, values)
    unseen = np.isnan(values) & np.array(given, dtype=bool)
    if UNKNOWN_TEXT in spec.categories:
        unseen = values == spec.categories.index(UNKNOWN_TEXT)
    found = count(reference.edges, values[~unseen])
    return msgspec.structs.replace(found, rows=len(values), unseen=int(unseen.sum()))


def _of_texts(spec: ModelInput, reference: Histogram, now: Histogram) -> tuple[Histogram, Histogram]:
    """As they are; where new texts, of which held-out rows had some, look like missing ones, both count among the rare texts, in the last bin."""
    if not spec.is_category or _tells_apart(spec) or not _number(reference.unseen):
        return reference, now
    one, other = (msgspec.structs.replace(one, counts=[*one.counts[:-1], one.counts[-1] + one.missing]) for one in (reference, now))
    return one, other


def _shares(spec: ModelInput, reference: Histogram, now: Histogram, each: float) -> Iterator[Finding | None]:
    """Shares missing and never seen. A version that does not know how many of its held-out rows had a new text is compared by what it knows."""
    new, unseen = _number(reference.unseen), _number(now.unseen) or 0
    if UNKNOWN_TEXT in spec.categories and new is None:
        new = reference.counts[-1]  # an older version counted them as the last of its texts
    if not spec.is_category or _tells_apart(spec):
        yield compare_missing(spec.name, Share(reference.missing, reference.rows), Share(now.missing, now.rows), each)
        if spec.is_category and new is not None:
            yield compare_missing(spec.name, Share(new, reference.rows), Share(unseen, now.rows), each, test=UNSEEN)
    elif new is not None:
        before = Share(reference.missing + new, reference.rows)
        yield compare_missing(spec.name, before, Share(now.missing + unseen, now.rows), each, test=MISSING_OR_UNSEEN)


def _number(value: int | msgspec.UnsetType) -> int | None:
    return None if isinstance(value, msgspec.UnsetType) else value


def left_out(manifest: Manifest) -> list[str]:
    """What cannot be compared, since an older tidemill made the version: how many values of the held-out rows were never seen before."""
    return [
        spec.name
        for spec in manifest.inputs
        if spec.is_category and UNKNOWN_TEXT not in spec.categories and _number(manifest.reference[spec.name].unseen) is None
    ]


def compare_results(manifest: Manifest, rows: Sequence[ResultRow], budget: float, versions: int = 1) -> Iterator[Finding]:
    """Calibration, or errors, on the joined results of a window against the holdout of training. Raises ArtifactError when the outcome was a
    number when the version was trained, and is a text now."""
    if len(rows) < LEAST_ROWS:
        return
    each = level(manifest, budget, versions)
    if manifest.output == "probabilities":
        yield from _compare_several(manifest, rows, each)
        return
    outputs, labels = _numbers(manifest, rows)
    if manifest.output == "probability":
        yield compare_calibration(labels, outputs.clip(0, 1), manifest.calibration.get("outcome"), each)
    else:
        yield from _present(compare_growth("mae", "mean absolute error", np.abs(labels - outputs), _held(manifest, "mae"), each))


def compare_ranking(manifest: Manifest, rows: Sequence[ResultRow], budget: float, versions: int = 1) -> Iterator[Finding]:
    """The AUC of a window against the holdout's; nothing while an outcome is rare among the rows. Raises ArtifactError as `compare_results`."""
    outputs, labels = _numbers(manifest, rows)
    held = manifest.calibration.get("outcome")
    share, held_rows = (held.observed, held.rows) if held else (manifest.metrics.get("positive_share", 0.0), _held_rows(manifest))
    positives = round(share * held_rows)
    auc = HeldAuc(manifest.metrics["auc"], manifest.metrics["auc_error"], positives, held_rows - positives)
    yield from _present(compare_auc(labels, outputs.clip(0, 1), auc, level(manifest, budget, versions)))


def _numbers(manifest: Manifest, rows: Sequence[ResultRow]) -> tuple[Floats, Floats]:
    """Outputs and outcomes."""
    if texts := sum(isinstance(row.outcome, str) for row in rows):
        raise ArtifactError(
            f"{texts} of {len(rows)} outcomes are texts, and {manifest.model} {manifest.version} answers with a {manifest.output}",
            mend=anew(manifest.model),
        )
    outputs, labels = np.array([(row.output, row.outcome) for row in rows], dtype=np.float64).T
    return outputs, labels


def _held_rows(manifest: Manifest) -> int:
    """How many rows were held out: the outputs of training are those of the held-out rows."""
    return manifest.reference["prediction"].rows


def _held(manifest: Manifest, metric: str) -> HeldMean:
    return HeldMean(manifest.metrics[metric], manifest.metrics.get(f"{metric}_error", 0.0), _held_rows(manifest))


def _compare_several(manifest: Manifest, rows: Sequence[ResultRow], each: float) -> Iterator[Finding]:
    """Of several classes: those that the model never saw; accuracy, for which these count as wrong; and, of all others, log loss and how often
    each class is."""
    classes = manifest.class_names
    places = np.array([classes.index(name) if (name := class_name(row.outcome)) in classes else -1 for row in rows])
    probabilities = np.array([[row.probabilities.get(name, 0.0) for name in classes] for row in rows], dtype=np.float64)
    unknown = Counter(class_name(row.outcome) for row, place in zip(rows, places, strict=True) if place < 0)
    yield compare_unknown(unknown, len(rows), manifest.rows, each)
    yield compare_accuracy(places, probabilities, _held(manifest, "accuracy"), each)
    known, got = places[places >= 0], probabilities[places >= 0]
    if len(known) < LEAST_ROWS:
        return
    yield from _present(compare_log_loss(known, got, _held(manifest, "log_loss"), each))
    for place, name in enumerate(classes):
        yield compare_frequency(name, known == place, got[:, place], manifest.calibration.get(name), each)


def _present(*findings: Finding | None) -> Iterator[Finding]:
    yield from (finding for finding in findings if finding is not None)
