"""What else a version of a file has: examples that prove it, a form for MLflow, a model without a pipeline, and a page that is true."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from tests.offline.lake import ROOT
from tests.training.elsewhere import contract, numbers, written
from tests.training.files import Perceptron
from tests.training.test_imported import ABOVE, ASKED, TAKEN, imported, sigmoid, vectors
from tests.training.test_zoo import ROWS, training_set
from tests.training.zoo import MODEL

from tidemill import Model
from tidemill.declarations.project import load_project
from tidemill.errors import ArtifactError, ProjectError, TidemillError
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import check_manifest
from tidemill.training.imported.checking import FileAnswers
from tidemill.training.imported.version import prepare
from tidemill.training.version import make_version
from tidemill_training.mlmodel import files_of


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_examples_are_compared(ending: str, tmp_path: Path) -> None:
    """Rows with the answers that the file's author has are compared with what would be served, and counted."""
    network, rows = Perceptron(12), ROWS[:40]
    table = [dict(row) | {"expected": float(p)} for row, p in zip(rows, sigmoid(network.answers(numbers(rows)))[:, 0], strict=True)]
    path = tmp_path / f"rows.{ending}"
    if ending == "json":
        path.write_text(json.dumps(table))
    else:
        pd.DataFrame(table).to_parquet(path)
    parity = imported(tmp_path, network.onnx(), contract(examples=path.name)).artifact.manifest.parity
    assert parity.rows == 60 + 40
    assert parity.compared > 1000
    assert parity.max_abs_diff < 1e-5


def test_mlflow_has_the_served_probability(tmp_path: Path) -> None:
    """The file that MLflow gets gives what is served, for several rows at once."""
    version = imported(tmp_path, TAKEN["names as ours"](), contract("logit"))
    files, rows = files_of(version.artifact.manifest, version.artifact.onnx, "run"), vectors(version, ASKED)
    session = onnxruntime.InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probability"]
    found = session.run(None, {session.get_inputs()[0].name: rows})[0][:, 0]
    assert found == pytest.approx(sigmoid(numbers(ASKED).mean(axis=1)), abs=1e-5)


def test_a_model_without_a_pipeline_is_only_imported(tmp_path: Path) -> None:
    """Its declaration is whole, training says what to do, and a file becomes a version of it."""
    declared = Model(MODEL.name, MODEL.on, MODEL.at, MODEL.subject, MODEL.inputs, MODEL.outcome)
    with pytest.raises(TidemillError, match=r"'big_tip' has no pipeline to train; .* tidemill models import big_tip FILE.onnx"):
        make_version(declared, training_set(ROWS, ABOVE), 0, lambda _: None)
    with pytest.raises(ProjectError, match="has no pipeline"):
        declared.pipeline()
    manifest = imported(tmp_path, Perceptron(12).onnx(), contract(), declared=declared).artifact.manifest
    assert manifest.rows == 300
    fewer = dataclasses.replace(declared, inputs=declared.inputs[:-1])
    with pytest.raises(ArtifactError, match=r"on other inputs than those declared; run: tidemill models import big_tip FILE\.onnx"):
        check_manifest(manifest, fewer, {view.name: ViewKernel(view) for view in fewer.views})


def test_the_contract_of_the_documentation(tmp_path: Path) -> None:
    """It fits the project of the README, and a network of its columns is served by it."""
    page = (ROOT / "docs" / "models.md").read_text()
    (text,) = re.findall(r"<!-- contract -->\n```json\n(.*?)```", page, re.DOTALL)
    declared, agreed = load_project(ROOT / "examples/orders").models["pays_late"], json.loads(text)
    network = Perceptron(3)
    files = written(tmp_path, network.onnx(), agreed)
    rows = [{"amount": 1.0 + i, "shops__count_7d": float(i), "shops__late_30d": None if i % 2 else 0.5} for i in range(9)]
    filled = np.array([[-1.0 if value is None else value for value in row.values()] for row in rows])
    expected = sigmoid(network.answers(filled))[:, 0]
    pd.DataFrame([row | {"expected": p} for row, p in zip(rows, expected, strict=True)]).to_parquet(tmp_path / agreed["examples"])
    prepared = prepare(declared, *files)
    assert prepared.expected is not None
    found = FileAnswers(prepared.wrapped).of(prepared.expected.rows, "of the page")
    assert found == pytest.approx(expected, abs=1e-6)
