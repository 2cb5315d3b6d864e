"""What a file answers: finite numbers of the right kind for every row that requests will bring, equal to the file's own, and as expected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import Parity
from tidemill.models.engine import Engine
from tidemill.models.runner import OnnxRunner
from tidemill.training.dataset import Floats
from tidemill.training.imported.contract import Contract
from tidemill.training.imported.elements import as_elements
from tidemill.training.imported.examples import ExpectedRows
from tidemill.training.imported.graph import Wrapped
from tidemill.training.imported.twin import Twin
from tidemill.training.parity import HELD_OUT_ROWS, TOLERANCE
from tidemill.training.probes import Probe, probes, spread

_UNLIKE = "export it without steps of chance, by model.eval() before; if it has none, report it: the graph around it is wrong"
Answers = Callable[[Floats], npt.NDArray[np.float64]]
"""What is served for rows."""
_OFF = 1e-3  # how far the sum of probabilities may be from 1


class FileAnswers:
    """Answers of a wrapped file, before it is known whether it can serve."""

    def __init__(self, wrapped: Wrapped) -> None:
        self._runner = OnnxRunner("the file", wrapped.onnx)
        self._several = bool(wrapped.classes)

    def of(self, rows: Floats, what: str) -> npt.NDArray[np.float64]:
        """The answer of each row, one row at a time. Raises TidemillError, which names the rows by `what`."""
        try:
            found = [self._runner.run({self._runner.inputs[0].name: row[None]})[0][0] for row in rows]
        except Exception as error:  # the exceptions of onnxruntime have no common root
            raise TidemillError(
                f"the file fails on rows {what}, which requests will bring: {' '.join(str(error).split())[:300]}",
                mend='say what stands for missing and unknown values, by "missing" and "unknown" of the contract',
            ) from error
        return np.array(found if self._several else [row[-1] for row in found], np.float64)


def check_answers(model: Model, contract: Contract, inputs: Sequence[Any], wrapped: Wrapped, matrix: Floats) -> list[Probe]:
    """The rows that were asked, held-out ones first: all have an answer of the right kind. Raises TidemillError, which says what to do."""
    asked = [Probe("held out", spread(matrix, HELD_OUT_ROWS)), *probes(model, inputs, matrix)]
    file = FileAnswers(wrapped)
    for probe in asked:
        found = file.of(as_elements(inputs, probe.rows), probe.what)
        if not np.isfinite(found).all():
            empty = sorted({inputs[i].name for i in np.flatnonzero(np.isnan(probe.rows).any(axis=0)).tolist()} & set(contract.taken))
            lacking = next((name for name in empty if name not in contract.missing), None)
            raise TidemillError(
                f"the file gives {found[~np.isfinite(found)].flat[0]} on rows {probe.what}, which requests will bring",
                mend=f'say what stands for a missing value: "missing": {{"{lacking}": 0}} in the contract'
                if lacking
                else "run the file by itself on such a row: the contract says what stands for each missing value, so it is the file that gives no number",
            )
        _check_kind(contract, found, probe)
    for other in (file, FileAnswers(wrapped)):
        held = as_elements(inputs, asked[0].rows)
        _check_repeated(file.of(held, asked[0].what), other.of(held, asked[0].what))
    return asked


def _check_repeated(first: npt.NDArray[np.float64], again: npt.NDArray[np.float64]) -> None:
    """Raises TidemillError for answers by chance."""
    if (apart := np.flatnonzero(first != again)).size:
        raise TidemillError(
            f"the file gives another answer to the same row: {first.flat[apart[0]]:.6g}, then {again.flat[apart[0]]:.6g}",
            mend="export it without steps of chance: call model.eval() first, so that dropout is off",
        )


def _check_kind(contract: Contract, found: npt.NDArray[np.float64], probe: Probe) -> None:
    if contract.output.gives == "value":
        return
    if (off := found[(found < -_OFF) | (found > 1 + _OFF)]).size:
        raise TidemillError(
            f"output {contract.output.name!r} is {off[0]:.4g} on rows {probe.what}, which is no probability",
            mend='say "logit" or "logits" if it is one, or "value"',
        )
    if found.ndim > 1 and (sums := found.sum(axis=1))[far := np.abs(sums - 1) > _OFF].size:
        raise TidemillError(
            f"the probabilities of output {contract.output.name!r} add up to {sums[far][0]:.4g} on rows {probe.what}",
            mend='say "logits" if they are that, or export the file with a softmax',
        )


def compare(answers: Answers, twin: Twin, asked: Sequence[Probe], expected: ExpectedRows | None, scale: tuple[float, float]) -> Parity:
    """How far the graph is from the file itself on all asked rows, and from the expected answers. Raises TidemillError where it is too far.
    `scale`: centre and spread of a value, see `Parity`."""
    rows = np.vstack([probe.rows for probe in asked])
    allowed = Parity(0.0, 0, TOLERANCE, *scale)
    apart = _apart(answers, rows, twin.answers(rows), allowed, "the file itself", _UNLIKE)
    held, compared = len(asked[0].rows), len(rows)
    most = float(np.max(apart[:held], initial=0.0))
    if expected is not None:
        mend = (
            "see that inputs are in the order of the file's columns, that missing and categories are as in its training, and that expected "
            "has what is served (a probability, not a logit)"
        )
        most = max(most, float(np.max(_apart(answers, expected.rows, expected.answers, allowed, "the examples", mend), initial=0.0)))
        held, compared = held + len(expected.rows), compared + len(expected.rows)
    return Parity(most, held, TOLERANCE, *scale, compared=compared)


def answers_of(engine: Engine) -> Answers:
    """What an engine answers to rows."""
    run = engine.probabilities if engine.classes else engine.predict
    return lambda rows: np.array([run(row) for row in rows], np.float64)


def _apart(answers: Answers, rows: Floats, wanted: Any, allowed: Parity, other: str, mend: str) -> npt.NDArray[np.float64]:
    got = answers(rows)
    apart = np.abs(got - wanted)
    wrong = ~(apart <= allowed.allowed(wanted))
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0])
        count = int(wrong.any(axis=1).sum() if wrong.ndim > 1 else wrong.sum())
        raise TidemillError(
            f"what would be served differs from {other} on {count:,} of {len(rows):,} rows, first on row {first[0] + 1}: "
            f"{got[first]:.6g} for {wanted[first]:.6g}",
            mend=mend,
        )
    found: npt.NDArray[np.float64] = apart
    return found
