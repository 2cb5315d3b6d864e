"""A whole import from an archive: training set, version, what is stored beside it, and MLflow's run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.demo_state import HOUR_MS, NOW_MS, demo
from tests.training.elsewhere import NAMES, contract, written
from tests.training.files import Perceptron
from tests.training.town import FOLDER, happened, town

from tidemill.attribution.stored import FILE, unpacked
from tidemill.errors import TidemillError
from tidemill.models.artifact import Artifact, beside_artifact, load_artifact
from tidemill.models.engine import load_engine
from tidemill.models.inputs import vector_of
from tidemill.training.imported.version import prepare
from tidemill.training.stages.data import DataRecord
from tidemill.training.stages.reading import read_evaluation
from tidemill_training.app import Trained
from tidemill_training.importing import ImportChoices, import_model
from tidemill_training.tracking import Tracker

PROJECT = demo()
MODEL = PROJECT.models["big_tip"]
pytestmark = pytest.mark.slow


def stored(root: str, version: Trained) -> Artifact:
    """The version, from the offline store."""
    return load_artifact(root, version.artifact, version.sha256)


def own_labels(folder: Path) -> Path:
    """The questions of the town as a file of label rows: every third is answered with yes."""
    wishes = [event for _, name, event in happened(80) if name == "asked"]
    rows = [
        {"time": wish["at"], "label": i % 3 == 0, **{name: wish[name] for name in MODEL.request_fields}} for i, wish in enumerate(wishes)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "labels.parquet")
    return folder / "labels.parquet"


def test_an_import_from_the_archive(tmp_path: Path) -> None:
    """The version answers as numpy does on its golden rows; file and contract lie beside it; MLflow has it; an error of the deployment does not
    lose the run."""
    root, network = str(town(tmp_path / "lake").root), Perceptron(len(NAMES))
    file, agreed = written(tmp_path, network.onnx(), contract(categories={"payment": ["cash"]}, unknown={"payment": 4}))
    seen, notes = list[str](), list[str]()

    def refuse(version: Trained) -> None:
        seen.append(version.manifest.version)
        raise TidemillError("no broker")

    prepared = prepare(MODEL, file, agreed)
    made = import_model(PROJECT, str(FOLDER), prepared, root, NOW_MS + 9 * HOUR_MS, notes.append)
    artifact = stored(root, made)
    assert artifact.manifest.categories["payment"][0] == "cash"
    assert made.run_id is not None
    folder = Path(root) / made.artifact
    assert (folder / "contract.json").read_bytes() == agreed.read_bytes()
    assert (folder / "imported.onnx").read_bytes() == file.read_bytes()
    assert unpacked("", beside_artifact(root, artifact.manifest, FILE)).method == "sampled"
    assert sum(artifact.manifest.feature_importance.values()) == pytest.approx(1.0)
    payment, engine = NAMES.index("payment"), load_engine(artifact)
    for row in artifact.manifest.golden:
        given = np.array([0.5 if value is None else value for value in row.inputs])
        given[payment] = {0.0: 0.0, 1.0: 4.0}[given[payment]]
        assert engine.predict(vector_of(row.inputs)) == pytest.approx(1 / (1 + np.exp(-network.answers(given[None])[0, 0])), abs=1e-5)
    assert {row.inputs[payment] for row in artifact.manifest.golden} == {0.0, 1.0}
    assert msgspec.json.encode(artifact.manifest.metrics["auc"])
    report = (folder / "report.html").read_text()
    assert "Calibration" in report
    found = read_evaluation(root, "big_tip", made.manifest.version)
    assert (found.metrics, found.learning) == (artifact.manifest.metrics, [])
    assert {one.input for one in found.importance} == set(NAMES)
    data = msgspec.json.decode((folder / "data.json").read_bytes(), type=DataRecord)
    assert (found.data, data.rows) == (data.digest, artifact.manifest.rows)
    choices = ImportChoices(champion=made.manifest.version, labels=own_labels(tmp_path))
    with pytest.raises(TidemillError, match="no broker"):
        import_model(PROJECT, str(FOLDER), prepared, root, NOW_MS + 9 * HOUR_MS, notes.append, refuse, choices)
    again = read_evaluation(root, "big_tip", seen[0])
    assert again.champion is not None
    assert again.champion.version == made.manifest.version
    assert again.champion.said.startswith("the champion has not seen 0 of the held-out rows")
    assert again.data != found.data
    assert (again.fitted_rows, again.held_out_rows) == (64, 16)
    assert again.metrics["positive_share"] == pytest.approx(5 / 16)
    assert seen > [made.manifest.version]
    assert "/mlflow/mlflow.db" in Tracker.for_store(root).uri
    assert len([note for note in notes if note.startswith("recording the run in MLflow")]) == 2
