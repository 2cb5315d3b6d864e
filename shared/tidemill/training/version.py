"""From a training set to a version of a model: fitted, converted, compared, and described by its manifest."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tidemill.declarations import Model
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Artifact, GoldenRow, Manifest, Parity
from tidemill.models.engine import Engine
from tidemill.stats.histograms import Histogram, reference
from tidemill.training.dataset import TrainingSet
from tidemill.training.fitting import Fitted, fit, to_onnx
from tidemill.training.parity import check_parity, expected_answers

GOLDEN_ROWS = 20


class Version(NamedTuple):
    """A version as it is stored, and the pipeline it was made from."""

    artifact: Artifact
    fitted: Fitted


def make_version(model: Model, examples: TrainingSet, created_ms: int, note: Callable[[str], None]) -> Version:
    """Fits, converts, and proves that both compute the same. Its name is the moment `created_ms`; `note` hears of progress.

    Raises TidemillError for unusable labels or columns, and when ONNX and scikit-learn disagree.
    """
    note(f"fitting on {len(examples):,} rows of {len(examples.inputs)} inputs")
    fitted = fit(model, examples)
    note("converting to ONNX and comparing")
    onnx = to_onnx(fitted.pipeline, len(examples.inputs), probability=fitted.probability)
    expected = expected_answers(model, fitted)
    engine = Engine.of_onnx(model.name, onnx, len(examples.inputs), fitted.output)
    parity, golden = check_parity(model, expected, engine), _golden(engine, fitted)
    return Version(Artifact(_manifest(model, examples, fitted, onnx, parity, golden, created_ms), onnx), fitted)


def _manifest(
    model: Model, examples: TrainingSet, fitted: Fitted, onnx: bytes, parity: Parity, golden: list[GoldenRow], created_ms: int
) -> Manifest:
    """All that is known of a version, once everything is known. Its name is the moment."""
    return Manifest(
        model=model.name,
        version=time.strftime("%Y%m%dT%H%M%S", time.gmtime(created_ms / 1000)) + f"{created_ms % 1000:03d}",
        created=created_ms,
        inputs=examples.inputs,
        output=fitted.output,
        definitions={view.name: ViewKernel(view).definition for view in model.views},
        trained_from=int(examples.times_ms[0]),
        trained_until=int(examples.times_ms[-1]),
        rows=len(examples),
        metrics=fitted.metrics,
        parity=parity,
        reference=_reference(examples, fitted),
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        golden=golden,
    )


def _reference(examples: TrainingSet, fitted: Fitted) -> dict[str, Histogram]:
    """What drift is measured against: the inputs of all examples, and what a model that had not seen them predicted for the holdout."""
    histograms = {spec.name: reference(examples.matrix[:, i], category=spec.kind == "category") for i, spec in enumerate(examples.inputs)}
    return histograms | {"prediction": reference(np.asarray(fitted.holdout_output))}


def _golden(engine: Engine, fitted: Fitted) -> list[GoldenRow]:
    """Some held-out rows and what the model answered: run again wherever it is loaded."""
    rows = fitted.holdout.matrix[:: max(1, len(fitted.holdout) // GOLDEN_ROWS)][:GOLDEN_ROWS]
    return [GoldenRow([None if math.isnan(value) else value for value in row.tolist()], engine.predict(row)) for row in rows]
