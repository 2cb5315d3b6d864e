"""From a file and its contract to a version of a model: wrapped, compared, measured, and described as a trained one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import Artifact, ModelInput
from tidemill.models.engine import Engine
from tidemill.training.blocks_contents import fed_by_contents
from tidemill.training.dataset import Floats, TrainingSet
from tidemill.training.fitting import Fitted, score
from tidemill.training.given_contents import with_strange
from tidemill.training.imported.checking import FileAnswers, answers_of, check_answers, compare
from tidemill.training.imported.contract import Contract, check_declared, read_contract
from tidemill.training.imported.elements import as_elements, elements_of
from tidemill.training.imported.examples import ExpectedRows, read_examples
from tidemill.training.imported.file import ModelFile, read_file
from tidemill.training.imported.graph import Wrapped, wrap
from tidemill.training.imported.labels import holdout_of, labelled, recoded
from tidemill.training.imported.twin import Twin
from tidemill.training.probes import Probe
from tidemill.training.version import manifest_of


class Prepared(NamedTuple):
    """A file that fits its contract, and the contract a model; what is known before there is a training set. `written`: both files as they
    were, by the names under which they are stored beside the version."""

    model: Model
    contract: Contract
    file: ModelFile
    wrapped: Wrapped
    expected: ExpectedRows | None
    written: dict[str, bytes]


class Imported(NamedTuple):
    """A version that was made from a file, and what it was measured on: `examples`, with labels as the file answers, of which the last are
    the holdout of `fitted`, whose `first` is the file."""

    artifact: Artifact
    examples: TrainingSet
    fitted: Fitted


class FileAsPipeline:
    """A file as scikit-learn's pipelines are asked."""

    def __init__(self, wrapped: Wrapped, inputs: Sequence[ModelInput]) -> None:
        self._answers, self._inputs, self._several = FileAnswers(wrapped), inputs, bool(wrapped.classes)

    def predict(self, rows: Floats) -> Floats:
        """The value of each row."""
        return self._answers.of(as_elements(self._inputs, rows), "with shuffled inputs").astype(np.float32)

    def predict_proba(self, rows: Floats) -> Floats:
        """The probability of each class."""
        found = self.predict(rows)
        return found if self._several else np.stack([1 - found, found], axis=1)


def prepare(model: Model, file: Path, contract_file: Path) -> Prepared:
    """Reads file and contract, and makes the graph around the file. Raises TidemillError, which names what does not fit."""
    contract = read_contract(contract_file)
    check_declared(contract, model)
    elements = elements_of(model)
    found = read_file(file, contract, elements.names)
    wrapped = wrap(found, contract, elements.order, model.outcome.class_names)
    expected = _expected(contract_file.parent / contract.examples, contract, model, wrapped.classes) if contract.examples else None
    written = {"imported.onnx": found.model.SerializeToString(), "contract.json": contract_file.read_bytes()}
    return Prepared(model, contract, found, wrapped, expected, written)


def _expected(path: Path, contract: Contract, model: Model, served: list[str]) -> ExpectedRows:
    """The examples, with classes in the order in which they are served."""
    found = read_examples(path, contract, elements_of(model))
    return found._replace(answers=found.answers[:, [contract.classes.index(name) for name in served]]) if served else found


def make_imported(prepared: Prepared, examples: TrainingSet, created_ms: int, note: Callable[[str], None]) -> Imported:
    """The version of a file, named after the moment `created_ms`, measured on the newest fifth of the examples. `note` gets messages about
    progress, and what cannot be proved. Raises TidemillError for labels of another kind, and for answers that cannot be served."""
    model, contract, _, wrapped, expected, _ = prepared
    examples = with_strange(labelled(model, contract, recoded(contract, examples), wrapped.classes, note))
    holdout, output = holdout_of(examples), wrapped.answered.output
    note(f"asking the file on {len(holdout):,} held-out rows, and on rows that requests will bring")
    _tell(prepared, note)
    asked = check_answers(model, contract, examples.inputs, wrapped, holdout.matrix)
    onnx = fed_by_contents(wrapped.onnx, examples.inputs)
    engine = Engine.of_onnx(model.name, onnx, examples.inputs, output, wrapped.classes)
    scale = (0.0, 1.0) if output != "value" else _scale(examples)
    twin, file = Twin(prepared.file, contract, elements_of(model).order, wrapped.classes), FileAnswers(wrapped)
    by_elements = [Probe(probe.what, as_elements(examples.inputs, probe.rows)) for probe in asked]
    parity = compare(lambda rows: file.of(rows, "compared"), twin, by_elements, expected, scale)
    answers = file.of(as_elements(examples.inputs, holdout.matrix), "held out").astype(np.float32)
    if (answers_of(engine.pooled(examples.inputs))(holdout.matrix).astype(np.float32) != answers).any():
        raise TidemillError("the file is served otherwise than it answers", mend="report it: the graph around it is wrong")
    measured = score(holdout.labels, answers, probability=output == "probability") | {"examples": float(len(examples))}
    fitted = Fitted(
        pipeline=None,
        probability=output != "value",
        metrics=measured,
        holdout=replace(holdout, values=holdout.matrix),
        holdout_output=answers,
        center=scale[0],
        scale=scale[1],
        classes=wrapped.classes,
        first=FileAsPipeline(wrapped, examples.inputs),
    )
    manifest = manifest_of(model, examples, fitted, onnx, parity, engine, created_ms)
    return Imported(Artifact(manifest, onnx), examples, fitted)


def _tell(prepared: Prepared, note: Callable[[str], None]) -> None:
    if left := [name for name in prepared.model.input_names if name not in prepared.contract.taken]:
        note(f"the file does not take these inputs of the model: {', '.join(left)}")
    if prepared.expected is None:
        note("the contract has no examples, so nothing proves that its inputs are in the order of the file's columns")


def _scale(examples: TrainingSet) -> tuple[float, float]:
    """Mean and standard deviation of the labels, by which differences are judged."""
    center, deviation = float(np.mean(examples.labels)), float(np.std(examples.labels))
    return center, deviation or abs(center) or 1.0
