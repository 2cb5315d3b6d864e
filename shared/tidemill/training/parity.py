"""The proof that ONNX and scikit-learn give the same answers: on held-out rows, and on rows that tidemill itself makes.

A training set may have no row with an unknown entity, a new category or a value beyond its range, but requests will. Converters are wrong
exactly there: in trees and forests, skl2onnx 1.20 sends every missing value the same way, whatever scikit-learn learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelInput, Parity
from tidemill.models.engine import Engine
from tidemill.training.dataset import Floats
from tidemill.training.fitting import Fitted, outputs

HELD_OUT_ROWS = 2_000
MISSING_ROWS = 100
BEYOND_ROWS = 20
BEYOND = 10.0
TOLERANCE = 1e-4

_MISSING_MEND = (
    "begin the pipeline with a SimpleImputer, or use HistGradientBoostingClassifier or -Regressor, "
    "whose missing values ONNX treats as scikit-learn does"
)
_OTHER_MEND = "use a pipeline whose steps skl2onnx converts exactly; inputs are float32, so round thresholds or scale values"


class Probe(NamedTuple):
    """Rows to compare, and a text that describes them: "with input 'x' missing"."""

    what: str
    rows: Floats


class Expected(NamedTuple):
    """A probe, and the answer of scikit-learn for each of its rows."""

    probe: Probe
    answers: Floats


def expected_answers(model: Model, fitted: Fitted) -> list[Expected]:
    """The answers of the pipeline: first on up to 2,000 held-out rows, then on every row that tidemill makes (`probes`).

    Raises TidemillError, which names the rows on which the pipeline fails.
    """
    matrix = fitted.holdout.matrix
    asked = [Probe("held out", _spread(matrix, HELD_OUT_ROWS)), *probes(model, fitted.holdout.inputs, matrix)]
    everything = Probe(
        "of a request", np.vstack([probe.rows for probe in asked])
    )  # one call: a call for each takes a hundred times as long
    try:
        answers = _answers(model, fitted, everything)
    except TidemillError:
        answers = np.concatenate([_answers(model, fitted, probe) for probe in asked])  # raises again, and names the first failing probe
    ends = np.cumsum([len(probe.rows) for probe in asked])
    return [Expected(probe, part) for probe, part in zip(asked, np.split(answers, ends[:-1]), strict=True)]


def check_parity(model: Model, expected: Sequence[Expected], engine: Engine) -> Parity:
    """The largest difference between scikit-learn and ONNX on the held-out rows.

    Raises TidemillError when a difference on any row exceeds the tolerance: 1e-4, or 1e-4 of the answer if it is above 1.
    """
    for probe, answers in expected:
        _compare(model, probe, answers, engine)
    held_out, answers = expected[0]
    return Parity(float(np.max(np.abs(answers - _predicted(engine, held_out.rows)))), len(answers), TOLERANCE)


def probes(model: Model, inputs: Sequence[ModelInput], matrix: Floats) -> Iterator[Probe]:
    """Rows that requests will bring, whether or not `matrix` has such rows. Each is a row of `matrix` with a change:

    - one input missing (a new category looks the same);
    - all features of a view missing, as for an unknown entity;
    - all inputs missing;
    - a number at its smallest or largest value, or ten times its range beyond.
    """
    base = _spread(matrix, MISSING_ROWS)
    for i, spec in enumerate(inputs):
        never_seen = " or never seen" if spec.is_category else ""
        yield Probe(f"with input {spec.name!r} missing{never_seen}", _with(base, [i], np.nan))
    for view in model.views:
        mine = [i for i, spec in enumerate(inputs) if spec.is_feature and spec.name.startswith(f"{view.name}__")]
        yield Probe(f"of an entity that view {view.name!r} does not know", _with(base, mine, np.nan))
    yield Probe("with all inputs missing", _with(base[:1], list(range(len(inputs))), np.nan))
    flags = {request.name for request in model.requests if request.type is bool}
    base = _spread(matrix, BEYOND_ROWS)
    for i, spec in enumerate(inputs):
        if not spec.is_category:
            values = [0.0, 1.0] if spec.name in flags else _ends(matrix[:, i])
            yield Probe(f"with input {spec.name!r} from {values[0]:g} to {values[-1]:g}", np.vstack([_with(base, [i], v) for v in values]))


def _ends(column: Floats) -> list[float]:
    """The smallest and largest value of a number, and values ten times their distance beyond; a number that is never negative stays so."""
    seen = column[~np.isnan(column)].astype(np.float64)
    least, most = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    away = BEYOND * max(most - least, 1.0)
    limit = float(np.finfo(np.float32).max)
    below = [max(least - away, -limit)] if least < 0 else []
    return [*below, least, most, min(most + away, limit)]


def _answers(model: Model, fitted: Fitted, probe: Probe) -> Floats:
    try:
        return outputs(fitted.pipeline, probe.rows, probability=fitted.probability)
    except Exception as error:  # raised by the project's own code, or by scikit-learn for a row
        raise TidemillError(
            f"model {model.name!r}: its pipeline fails on rows {probe.what}, which requests will bring: "
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}",
            mend="begin the pipeline with a SimpleImputer, and give encoders handle_unknown='ignore'",
        ) from error


def _predicted(engine: Engine, rows: Floats) -> Floats:
    return np.array([engine.predict(row) for row in rows], dtype=np.float32)


def _compare(model: Model, probe: Probe, answers: Floats, engine: Engine) -> None:
    got = _predicted(engine, probe.rows)
    apart = np.abs(answers.astype(np.float64) - got) / np.maximum(1.0, np.abs(answers, dtype=np.float64))
    wrong = ~(apart <= TOLERANCE)  # NaN is wrong
    if wrong.any():
        worst = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
        raise TidemillError(
            f"model {model.name!r}: ONNX and scikit-learn differ on {int(wrong.sum()):,} of {len(apart):,} rows {probe.what}, "
            f"such as {got[worst]:.4g} for {answers[worst]:.4g}; {TOLERANCE:g} is allowed",
            mend=_MISSING_MEND if np.isnan(probe.rows[worst]).any() else _OTHER_MEND,
        )


def _spread(matrix: Floats, count: int) -> Floats:
    """Up to `count` rows, evenly spread over the matrix."""
    return matrix[:: max(1, len(matrix) // count)][:count]


def _with(rows: Floats, columns: list[int], value: float) -> Floats:
    """A copy with other values in some columns."""
    changed = rows.copy()
    changed[:, columns] = value
    return changed
