"""MLflow decides nothing: whatever it does, a version is made and can be deployed, and what it missed it is told later."""

from __future__ import annotations

import dataclasses
import shlex
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.demo_state import NOW_MS, demo
from tests.patience import PATIENCE_SECONDS
from tests.proof.world import World
from tests.training.test_train import MODEL, client
from tests.training.town import FOLDER, town

from tidemill.errors import KafkaUnavailable, TidemillError
from tidemill.models.artifact import load_artifact, stored_artifact
from tidemill_training.app import Trained, train
from tidemill_training.tracking import Tracker, track
from tidemill_training.untracked import Notes, Untracked

AWAY = "http://127.0.0.1:1"
OTHERS = 120


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the template is stored."""
    return tmp_path_factory.mktemp("offline")


@pytest.fixture(scope="module")
def template(root: Path) -> Trained:
    """A version of the town's model, trained once."""
    town(root, 60)
    return _train(root, [])


@pytest.fixture
def onnx(template: Trained, root: Path) -> bytes:
    """Its ONNX file."""
    return (root / template.artifact / "model.onnx").read_bytes()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A town of its own, whose MLflow a test may spoil."""
    return town(tmp_path, 60)


def _train(root: Path, notes: list[str]) -> Trained:
    return train(demo(), str(FOLDER), MODEL, str(root), NOW_MS + 10**9, notes.append, lambda _: None)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_mlflow_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is made, the training says why it is not in MLflow, in bounded time, and the next training records both in order."""
    notes: list[str] = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    started = time.monotonic()
    missed = _train(world.root, notes)
    assert time.monotonic() - started < PATIENCE_SECONDS  # MLflow itself would try for longer
    assert missed.run_id is None
    assert load_artifact(str(world.root), missed.artifact, missed.sha256).manifest == missed.manifest
    assert notes[-2] == f"recording the run in MLflow at {AWAY}"
    assert notes[-1].startswith(f"big_tip {missed.manifest.version} is not in MLflow yet: MLflow at {AWAY} failed: ")
    assert notes[-1].endswith(
        "; start it, or correct MLFLOW_TRACKING_URI; the next training, and the next change of roles, makes up for it"
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    later = _train(world.root, notes)
    assert notes[-1] == f"big_tip {missed.manifest.version} is in MLflow now"
    assert Notes(str(world.root)).all() == []
    mlflow = client(world)
    versions = sorted(mlflow.search_model_versions("name='big_tip'"), key=lambda found: int(found.version))
    assert [found.tags["tidemill.version"] for found in versions] == [missed.manifest.version, later.manifest.version]
    assert mlflow.get_model_version_by_alias("big_tip", "champion").run_id == later.run_id
    run = mlflow.get_run(versions[0].run_id)
    assert (run.info.status, run.info.run_name, run.data.params["pipeline"]) == ("FINISHED", missed.manifest.version, "Pipeline")
    assert run.data.metrics["auc"] == pytest.approx(missed.manifest.metrics["auc"])


@pytest.mark.slow
def test_mlflow_does_not_answer(world: World, silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs is given up after the seconds and repeats that the environment names."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    artifact, notes = _stored(world), list[str]()
    started = time.monotonic()
    assert track(str(world.root), artifact.manifest, artifact.onnx, {"a": 1}, notes.append) is None
    assert time.monotonic() - started < PATIENCE_SECONDS  # MLflow itself would wait for longer
    assert Notes(str(world.root)).all() == [Untracked("big_tip", artifact.manifest.version, {"a": 1})]


def _stored(world: World) -> Any:
    made = _train(world.root, [])
    return stored_artifact(str(world.root), "big_tip", made.manifest.version)


@pytest.mark.slow
def test_more_than_a_hundred_models(world: World, template: Trained, onnx: bytes) -> None:
    """A server lists a hundred models at a time; one whose name comes later is registered once, and gets its next version."""
    uri = Tracker.for_store(str(world.root)).uri
    from mlflow import MlflowClient

    mlflow = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for i in range(OTHERS):
        mlflow.create_registered_model(f"a{i:03d}")
    tracker, made = Tracker.for_store(str(world.root)), template.manifest
    runs = [tracker.record(msgspec.structs.replace(made, model="zz", version=version), onnx, {}) for version in ("v1", "v2")]
    assert "zz" not in [model.name for model in mlflow.search_registered_models()]
    found = sorted(mlflow.search_model_versions("name='zz'"), key=lambda version: int(version.version))
    assert [version.run_id for version in found] == runs


@pytest.mark.slow
def test_a_version_that_is_gone_meanwhile(world: World) -> None:
    """A note about a version whose files were removed is told once and dropped; it keeps no other from being recorded."""
    notes: list[str] = []
    Notes(str(world.root)).add(Untracked("big_tip", "20200101T000000000", {}))
    assert _train(world.root, notes).run_id is not None
    assert notes[-1].startswith("big_tip 20200101T000000000 can no longer be recorded: models/big_tip/20200101T000000000 cannot be read")
    assert Notes(str(world.root)).all() == []


@pytest.mark.slow
def test_a_version_is_announced_before_it_is_recorded(world: World) -> None:
    """Whoever takes a stored version gets it whole before MLflow is asked; if that fails, MLflow has the version all the same."""
    notes: list[str] = []

    def refuse(stored: Trained) -> None:
        notes.append(f"stored {stored.manifest.version}")
        assert stored.run_id is None
        assert load_artifact(str(world.root), stored.artifact, stored.sha256).manifest == stored.manifest
        raise TidemillError("nobody takes it")

    with pytest.raises(TidemillError, match="nobody takes it"):
        train(demo(), str(FOLDER), MODEL, str(world.root), NOW_MS + 10**9, notes.append, refuse)
    assert notes[-1].startswith("recording the run in MLflow at ")
    (version,) = client(world).search_model_versions("name='big_tip'")
    assert notes[-2] == f"stored {version.tags['tidemill.version']}"


@pytest.mark.slow
def test_a_model_that_changed_since_its_version_was_stored(world: World) -> None:
    """A version was stored and not announced, then the model got other inputs: the same command begins another run, since that version stands."""
    notes: list[str] = []

    def away(_: Trained) -> None:
        raise KafkaUnavailable("no broker answers", mend="start Kafka")

    until_ms = NOW_MS + 10**9 + 7
    with pytest.raises(KafkaUnavailable):
        train(demo(), str(FOLDER), MODEL, str(world.root), until_ms, notes.append, away)
    fewer = dataclasses.replace(MODEL, inputs=MODEL.inputs[:-1])
    project = dataclasses.replace(demo(), models={MODEL.name: fewer})
    made = train(project, str(FOLDER), fewer, str(world.root), until_ms, notes.append, lambda _: None)
    assert len(made.manifest.inputs) < len(MODEL.input_names)
    assert not any("going on with" in note for note in notes)


@pytest.mark.slow
def test_a_damaged_note(world: World) -> None:
    """It is named with what mends it, the version is made, and is recorded once the note is gone."""
    notes: list[str] = []
    file = world.root / "untracked" / "big_tip.v0.json"
    file.parent.mkdir()
    file.write_text("{")
    missed = _train(world.root, notes)
    assert missed.run_id is None
    assert "untracked/big_tip.v0.json below the offline store is damaged: " in notes[-1]
    assert notes[-1].endswith("; delete it")
    file.unlink()
    _train(world.root, notes)
    assert f"big_tip {missed.manifest.version} is in MLflow now" in notes


def test_notes_are_kept_in_order(tmp_path: Path) -> None:
    """The oldest version comes first, whatever model it is of; a note is replaced, and removed alone."""
    notes = Notes(str(tmp_path / "not" / "there" / "yet"))
    assert notes.all() == []
    first, second, third = Untracked("b", "1", {"x": 1}), Untracked("a", "2", {}), Untracked("b", "3", {})
    for untracked in (third, first, second, Untracked("b", "1", {"x": 1})):
        notes.add(untracked)
    assert notes.all() == [first, second, third]
    notes.remove(second)
    assert notes.all() == [first, third]


@pytest.mark.slow
def test_a_database_of_another_schema(tmp_path: Path, template: Trained, onnx: bytes) -> None:
    """MLflow refuses it; the error has the very command of MLflow's that upgrades it, and that runs here."""
    tracker = Tracker.for_store(str(tmp_path))
    tracker.record(template.manifest, onnx, {})
    with sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as database:
        (head,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.commit()
        with pytest.raises(TidemillError, match=r"out-of-date database schema") as caught:
            Tracker(f"{tracker.uri}?again", None).record(template.manifest, onnx, {})
        told = caught.value.mend.partition("then run: ")[2].partition("; the next training")[0]
        assert told.endswith(f" -m mlflow db upgrade '{tracker.uri}?again'")
        database.execute("UPDATE alembic_version SET version_num = ?", (head,))
        database.commit()
    database.close()
    done = subprocess.run(shlex.split(told.replace("?again", "")), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
