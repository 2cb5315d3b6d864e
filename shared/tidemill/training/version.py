"""From a training set to a version of a model: fit, convert, compare, and describe it in a manifest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from msgspec import UNSET

from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Artifact, GoldenRow, Manifest, ModelInput, Parity, PythonEngine, without_pools
from tidemill.models.engine import Engine
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.models.line import LearnedOnline
from tidemill.stats.calibration import Calibrated, calibrated
from tidemill.stats.histograms import Histogram, count, held_out_reference, places_ruler, reference
from tidemill.training.conversion import to_onnx
from tidemill.training.dataset import Floats, TrainingSet
from tidemill.training.explained import explained
from tidemill.training.fitting import Fitted, fit
from tidemill.training.given_contents import as_served
from tidemill.training.mends import OWN_PIPELINE_MEND, WORDS_MEND
from tidemill.training.parity import check_parity, engine_of, expected_answers, worker_of
from tidemill.training.pickled import pickled_form
from tidemill.training.stages.records import run_name

GOLDEN_ROWS = 20
_ON_OTHER_SIDE = "lie on a threshold of a tree and fall on its other side in float32"


class Exported(NamedTuple):
    """A version in its stored form, and further files to store beside it, by name."""

    artifact: Artifact
    beside: dict[str, bytes]


class Version(NamedTuple):
    """A version in its stored form, the pipeline from which it was made, and further files to store beside it, by name."""

    artifact: Artifact
    fitted: Fitted
    beside: Mapping[str, bytes] = {}


def make_version(model: Model, examples: TrainingSet, created_ms: int, note: Callable[[str], None], cuts: Sequence[int] = ()) -> Version:
    """Fits, converts, and proves that ONNX and scikit-learn compute the same. The version is named after the moment `created_ms`; `note`
    gets messages about progress; `cuts`: see `fit`.

    Raises TidemillError for unusable labels or columns, and when ONNX and scikit-learn disagree.
    """
    note(f"fitting on {len(examples):,} rows of {len(examples.inputs)} inputs")
    fitted = fit(model, examples, cuts)
    exported = export(model, examples, fitted, created_ms, note)
    return Version(exported.artifact, fitted, exported.beside)


def export(model: Model, examples: TrainingSet, fitted: Fitted, created_ms: int, note: Callable[[str], None]) -> Exported:
    """Converts a fitted pipeline, or pickles one that serves itself, and proves that what serves computes the same; as `make_version`."""
    form = _form(model, fitted, note)
    parity, golden = form.parity, _golden(form.engine, fitted)
    if other := _otherwise_chosen(fitted):
        note(f"predict of the pipeline chooses another class than the most probable one on {other:,} held-out rows: that one is answered")
    if parity.on_threshold:
        how = "are answered otherwise alone than among others: they lie on a tie" if form.own else _ON_OTHER_SIDE
        note(f"{parity.on_threshold:,} of {parity.compared:,} compared rows {how}")
    manifest = _manifest(model, examples, fitted, form, golden, created_ms)
    made = explained(Artifact(manifest, form.file), examples, form.engine)
    return Exported(made.artifact, dict(made.files))


class ServedForm(NamedTuple):
    """What serves: its file, proved equal to the pipeline. `own`: of a pipeline that serves itself (None: ONNX)."""

    file: bytes
    engine: Engine
    parity: Parity
    own: PythonEngine | None = None


def _form(model: Model, fitted: Fitted, note: Callable[[str], None]) -> ServedForm:
    """Raises TidemillError for what has no such form, or another answer in it."""
    if model.engine == "python":
        note("pickling, and comparing what its worker answers: the python engine is slower")
        file, own = pickled_form(model, fitted)
        engine = worker_of(model, fitted, file, own)
        return ServedForm(file, engine, check_parity(model, fitted, expected_answers(model, fitted), engine), own)
    note("converting to ONNX and comparing")
    with or_by_itself(fitted):
        onnx = to_onnx(fitted.pipeline, fitted.holdout.inputs, probability=fitted.probability)
    expected = expected_answers(model, fitted)
    with or_by_itself(fitted):
        engine = engine_of(model, fitted, onnx)
        return ServedForm(onnx, engine, check_parity(model, fitted, expected, engine))


@contextmanager
def or_by_itself(fitted: Fitted) -> Iterator[None]:
    """What is refused since ONNX cannot serve it could serve itself, if it takes no contents: its mend names that, too."""
    try:
        yield
    except TidemillError as error:
        if error.mend == WORDS_MEND or any(spec.is_content for spec in fitted.holdout.inputs):
            raise
        raise TidemillError(error.message, mend=f"{error.mend}; {OWN_PIPELINE_MEND}") from error


def _manifest(model: Model, examples: TrainingSet, fitted: Fitted, form: ServedForm, golden: list[GoldenRow], created_ms: int) -> Manifest:
    """The manifest of a version, made once all its parts are known."""
    return Manifest(
        model=model.name,
        version=run_name(created_ms),
        created=created_ms,
        inputs=without_pools(fitted.holdout.inputs),
        output=fitted.output,
        definitions={view.name: ViewKernel(view).definition for view in model.views},
        trained_from=int(examples.times_ms.min()),
        trained_until=int(examples.times_ms.max()),
        rows=len(examples),
        metrics=fitted.metrics,
        parity=form.parity,
        reference=_reference(examples, fitted),
        onnx_sha256="" if form.own else hashlib.sha256(form.file).hexdigest(),
        engine=form.own or UNSET,
        golden=golden,
        classes=fitted.classes or UNSET,
        calibration=_calibration(fitted),
        online=LearnedOnline(run_name(created_ms)) if model.online and form.own else UNSET,
    )


def manifest_of(
    model: Model, examples: TrainingSet, fitted: Fitted, onnx: bytes, parity: Parity, engine: Engine, created_ms: int
) -> Manifest:
    """The manifest of a version whose ONNX form was made elsewhere: `fitted` has no pipeline, but what was measured."""
    return _manifest(model, examples, fitted, ServedForm(onnx, engine, parity), _golden(engine, fitted), created_ms)


def _otherwise_chosen(fitted: Fitted) -> int:
    """On how many held-out rows `predict` of a pipeline of several classes gives none of those with the largest probability."""
    if not fitted.classes:
        return 0
    rows = fitted.given(fitted.holdout.matrix)
    probabilities, named = fitted.pipeline.predict_proba(rows), np.asarray(fitted.pipeline.predict(rows)).astype(np.int64).reshape(-1)
    return int((probabilities[np.arange(len(named)), named] < probabilities.max(axis=1)).sum())


def _reference(examples: TrainingSet, fitted: Fitted) -> dict[str, Histogram]:
    """The distributions for drift detection, all of the rows that were held out: the inputs, and the outputs of a pipeline fitted without
    them. How many texts are new is seen there alone."""
    histograms = {
        spec.name: held_out_reference(examples.numbers(i), len(fitted.holdout), _texts(spec) if spec.is_category else None)
        for i, spec in enumerate(fitted.holdout.inputs)
    }
    return histograms | {"prediction": _reference_output(fitted)}


def _texts(spec: ModelInput) -> int:
    """How many texts of a category have a number."""
    return sum(text != UNKNOWN_TEXT for text in spec.categories)


def _reference_output(fitted: Fitted) -> Histogram:
    """Of several classes one bin for each, by the place of the answered one."""
    output = np.asarray(fitted.holdout_output)
    if not fitted.classes:
        return reference(output)
    return count(places_ruler(len(fitted.classes)), output.argmax(axis=1).astype(np.float64))


def _calibration(fitted: Fitted) -> dict[str, Calibrated]:
    """How often outcomes came on the held-out rows beside what was predicted."""
    labels, output = np.asarray(fitted.holdout.labels, np.float64), np.asarray(fitted.holdout_output, np.float64)
    if fitted.output == "value":
        return {}
    if not fitted.classes:
        return {"outcome": calibrated(labels, output)}
    return {name: calibrated((labels == i).astype(np.float64), output[:, i]) for i, name in enumerate(fitted.classes)}


def _golden(engine: Engine, fitted: Fitted) -> list[GoldenRow]:
    """Some held-out rows with the model's outputs; every process that loads the model runs them again."""
    rows = fitted.holdout.matrix[:: max(1, len(fitted.holdout) // GOLDEN_ROWS)][:GOLDEN_ROWS]
    return [_golden_row(engine, fitted.holdout.inputs, row) for row in rows]


def _golden_row(engine: Engine, specs: Sequence[ModelInput], row: Floats) -> GoldenRow:
    answer, (vector, contents) = engine.pooled(specs).answer(row), as_served(specs, row)
    inputs = [None if math.isnan(value) else value for value in vector.tolist()]
    return GoldenRow(inputs, answer.output, list(answer.probabilities.values()) or UNSET, contents or UNSET)
