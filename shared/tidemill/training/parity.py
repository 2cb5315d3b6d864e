"""The proof that ONNX and scikit-learn give the same answers: on held-out rows, and on rows that tidemill itself makes.

A training set may have no row with an unknown entity, a new category or a value beyond its range, but requests will. Converters are wrong
exactly there. A difference is measured by the scale of the answers. A row whose numbers lie within a millionth of a threshold may fall on its
other side in float32; a small share of such rows is borne and told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import Parity, PythonEngine
from tidemill.models.engine import Engine
from tidemill.training.blame import differing_step, inexact_step
from tidemill.training.dataset import Floats
from tidemill.training.fitting import Fitted, answered, outputs
from tidemill.training.mends import differ_mend, threshold_mend
from tidemill.training.probes import Probe, probes, spread
from tidemill.training.steps import Step, last_step, steps_of

HELD_OUT_ROWS = 2_000
TOLERANCE = 1e-4
THRESHOLD_SHARE = 0.01
_NUDGE = 1e-6
_NUDGED_ROWS = 100
_INSIDE_TIMES = 32
_ONE_BY_ONE = "let the answer to a row depend on that row alone, and on what was fitted: requests are answered one by one"

Flags = npt.NDArray[np.bool_]


class Expected(NamedTuple):
    """A probe, and the answer of scikit-learn for each of its rows: a number, or a row with the probability of each class."""

    probe: Probe
    answers: Floats


class _Compared(NamedTuple):
    """An expectation beside the answers of ONNX: which rows differ, and which of these lie on a threshold."""

    expected: Expected
    got: Floats
    wrong: Flags
    borne: Flags


def engine_of(model: Model, fitted: Fitted, onnx: bytes) -> Engine:
    """The engine of a pipeline's ONNX form. Raises TidemillError, which names the step that cannot serve."""
    inputs, columns = fitted.holdout.inputs, len(fitted.holdout.inputs)
    try:
        return Engine.of_onnx(model.name, onnx, inputs, fitted.output, fitted.classes)
    except Exception as error:  # the exceptions of onnxruntime have no common root
        unknown = Probe("with all inputs missing", np.full((1, columns), np.nan, np.float32))
        raise _onnx_fails(model, fitted, unknown, error) from error


def worker_of(model: Model, fitted: Fitted, pickled: bytes, own: PythonEngine) -> Engine:
    """The engine of a pipeline that serves itself. Raises ArtifactError when its worker cannot load it, or gives no number for missing inputs."""
    return Engine.of_pipeline(model.name, pickled, own, fitted.holdout.inputs, fitted.output, fitted.classes)


def expected_answers(model: Model, fitted: Fitted) -> list[Expected]:
    """The answers of the pipeline: first on up to 2,000 held-out rows, then on every row that tidemill makes (`probes`).

    Raises TidemillError, which names the rows on which the pipeline fails, and its step.
    """
    matrix = fitted.holdout.matrix
    asked = [Probe("held out", spread(matrix, HELD_OUT_ROWS)), *probes(model, fitted.holdout.inputs, matrix)]
    everything = Probe(
        "of a request", np.vstack([probe.rows for probe in asked])
    )  # one call: a call for each takes a hundred times as long
    try:
        answers = _answers(model, fitted, everything)
    except TidemillError:
        answers = np.concatenate([_answers(model, fitted, probe) for probe in asked])  # raises again, and names the first failing probe
    ends = np.cumsum([len(probe.rows) for probe in asked])
    return [Expected(probe, part) for probe, part in zip(asked, np.split(answers, ends[:-1]), strict=True)]


def check_parity(model: Model, fitted: Fitted, expected: Sequence[Expected], engine: Engine) -> Parity:
    """What was compared, and the largest difference on held-out rows that do not lie on a threshold.

    Raises TidemillError when a row differs that does not lie on a threshold, or more than 1 % of the rows do and differ: of the held-out
    rows, or of all.
    """
    allowed = Parity(0.0, 0, TOLERANCE, fitted.center, fitted.scale)
    compared = [_compared(model, fitted, item, engine, allowed) for item in expected]
    for item in compared:
        _refuse(model, fitted, [item], item.wrong & ~item.borne)
    for some in (compared[:1], compared):
        borne = np.concatenate([item.borne for item in some])
        if borne.sum() > max(1, THRESHOLD_SHARE * len(borne)):
            _refuse(model, fitted, some, borne)
    held_out = compared[0]
    apart = np.abs(held_out.expected.answers - held_out.got)[~held_out.borne]
    return Parity(
        float(np.max(apart, initial=0.0)),
        len(held_out.got),
        TOLERANCE,
        fitted.center,
        fitted.scale,
        compared=sum(len(item.got) for item in compared),
        on_threshold=sum(int(item.borne.sum()) for item in compared),
    )


def _compared(model: Model, fitted: Fitted, expected: Expected, engine: Engine, allowed: Parity) -> _Compared:
    rows, answers = expected.probe.rows, expected.answers.astype(np.float64)
    got = _predicted(model, fitted, expected.probe, engine)
    wrong = _of_row(~(np.abs(answers - got) <= allowed.allowed(answers)))  # NaN is wrong
    borne = np.zeros_like(wrong)
    if engine.worker is not None:  # the same pipeline: ties, as among neighbours, may fall otherwise for a row alone
        return _Compared(expected, got, wrong, wrong & ~_of_row(np.isnan(got)))
    if some := np.flatnonzero(wrong)[:_NUDGED_ROWS].tolist():
        near = _on_threshold(fitted, rows[some], answers[some], got[some], allowed)
        borne[some] = near
        if near.all():  # beyond so many rows, the share decides
            borne |= wrong
    return _Compared(expected, got, wrong, borne)


def _on_threshold(fitted: Fitted, rows: Floats, answers: Any, got: Floats, allowed: Parity) -> Flags:
    """Whether numbers moved by a millionth of their size bring the pipeline's answer to that of ONNX."""
    below, above = np.zeros(answers.shape), np.zeros(answers.shape)
    for low, high in _moved_inputs(fitted, rows):
        moved = [np.asarray(low) - answers, np.asarray(high) - answers]
        below += np.minimum(0.0, np.minimum(*moved))
        above += np.maximum(0.0, np.maximum(*moved))
    if any(spec.is_content for spec in fitted.holdout.inputs):
        inside = [made - answers for made in _moved_inside(fitted, rows)]
        below += np.min(inside, axis=0, initial=0.0)
        above += np.max(inside, axis=0, initial=0.0)
    margin = allowed.allowed(answers)
    far: Flags = (got < answers + below - margin) | (got > answers + above + margin) | np.isnan(got)
    return ~_of_row(far)


def _moved_inputs(fitted: Fitted, rows: Floats) -> Iterator[tuple[Floats, Floats]]:
    """For each number that requests bring: the answers when it is a little less, and a little more."""
    sizes = np.nan_to_num(np.nanmax(np.abs(np.vstack([fitted.holdout.matrix, rows])), axis=0, initial=0.0))
    for i in (i for i, spec in enumerate(fitted.holdout.inputs) if not spec.has_texts):
        moved = []
        for sign in (-1, 1):
            nudged = rows.copy()
            nudged[:, i] += np.float32(sign * _NUDGE * sizes[i])
            moved.append(outputs(fitted.pipeline, fitted.given(nudged), probability=fitted.probability, several=bool(fitted.classes)))
        yield moved[0], moved[1]


def _moved_inside(fitted: Fitted, rows: Floats) -> Iterator[Floats]:
    """Texts and tensors cannot be moved themselves, so the numbers made of them are: the answers when all that reach the last step are a little
    less or more, each by chance."""
    *_, step = steps_of(fitted.pipeline, fitted.given(rows))
    reach = step.rows.toarray() if hasattr(step.rows, "toarray") else np.asarray(step.rows)
    if reach.dtype.kind != "f":  # the last step takes the texts themselves
        return
    draw, sizes = np.random.default_rng(0), _NUDGE * np.nan_to_num(np.abs(reach).max(axis=0, initial=0.0))
    for _ in range(_INSIDE_TIMES):
        moved = reach + draw.choice([-1.0, 1.0], reach.shape) * sizes
        yield outputs(step.estimator, moved.astype(reach.dtype), probability=fitted.probability, several=bool(fitted.classes))


def _of_row(flags: Flags) -> Flags:
    """Whether any number of a row's answer has the flag."""
    found: Flags = flags if flags.ndim == 1 else np.asarray(flags.any(axis=1))
    return found


def _answers(model: Model, fitted: Fitted, probe: Probe) -> Floats:
    rows, several = fitted.given(probe.rows), bool(fitted.classes)
    return answered(model, fitted.pipeline, rows, probe.what, probability=fitted.probability, several=several)


def _predicted(model: Model, fitted: Fitted, probe: Probe, engine: Engine) -> Floats:
    try:
        return np.asarray(engine.pooled(fitted.holdout.inputs).each(probe.rows), np.float32)
    except Exception as error:  # the exceptions of onnxruntime have no common root
        raise _onnx_fails(model, fitted, probe, error) from error


def _onnx_fails(model: Model, fitted: Fitted, probe: Probe, error: Exception) -> TidemillError:
    if model.engine == "python":
        told = error.message if isinstance(error, TidemillError) else repr(error)
        return TidemillError(f"model {model.name!r}: a worker cannot answer rows {probe.what} one by one: {told}", mend=_ONE_BY_ONE)
    step = differing_step(fitted.pipeline, fitted.given(probe.rows)) or Step((), fitted.pipeline)
    return TidemillError(
        f"model {model.name!r}: the ONNX form of {step.title} fails on rows {probe.what}, which requests will bring: "
        f"{type(error).__name__}: {getattr(error, 'message', str(error)).strip().partition(chr(10))[0][:300]}",
        mend=differ_mend(step),
    )


def _refuse(model: Model, fitted: Fitted, compared: Sequence[_Compared], wrong: Flags) -> None:
    """Raises TidemillError for the rows that are wrong, if there are any."""
    if not wrong.any():
        return
    rows, got = np.vstack([item.expected.probe.rows for item in compared]), np.concatenate([item.got for item in compared])
    answers = np.concatenate([item.expected.answers for item in compared]).astype(np.float64)
    if answers.ndim > 1:  # the class that differs most tells for its row
        most = np.argmax(np.where(np.isnan(got), np.inf, np.abs(answers - got)), axis=1)
        answers, got = answers[np.arange(len(most)), most], got[np.arange(len(most)), most]
    apart = np.abs(answers - got)
    worst = int(np.argmax(np.where(wrong, np.where(np.isnan(apart), np.inf, apart), -1.0)))
    allowed = Parity(0.0, 0, TOLERANCE, fitted.center, fitted.scale).allowed(answers[worst])
    if model.engine == "python":
        raise TidemillError(
            f"model {model.name!r}: its pipeline answers {int(wrong.sum()):,} of {len(wrong):,} rows otherwise one by one than all together, "
            f"such as {got[worst]:.4g} for {answers[worst]:.4g}; {allowed:.2g} is allowed",
            mend=_ONE_BY_ONE,
        )
    near = all((item.borne >= item.wrong).all() for item in compared)
    blame = inexact_step if near else differing_step
    step = blame(fitted.pipeline, fitted.given(np.vstack([rows[worst : worst + 1], rows[wrong][:20]])))
    where = compared[0].expected.probe.what if len(compared) == 1 else "of all kinds"
    thresholds = f" that lie on a threshold of {type(last_step(fitted.pipeline).estimator).__name__}" if near else ""
    raise TidemillError(
        f"model {model.name!r}: ONNX and scikit-learn differ on {int(wrong.sum()):,} of {len(wrong):,} rows {where}{thresholds}, "
        f"such as {got[worst]:.4g} for {answers[worst]:.4g}; {allowed:.2g} is allowed{f', first in {step.title}' if step else ', though no step alone differs'}",
        mend=_mend(step, near=near),
    )


def _mend(step: Step | None, *, near: bool) -> str:
    if near:
        return threshold_mend(step)
    return differ_mend(step) if step else "use another pipeline, and report this one"
