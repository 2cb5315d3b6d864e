"""A whole training: artifact, parity, MLflow's run and champion; and nothing of it when something is wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.demo_state import NOW_MS, demo
from tests.offline.lake import ROOT, make_topics, send
from tests.proof.world import World
from tests.training.town import FOLDER, happened, town

from tidemill.archive.catching_up import wait_archived
from tidemill.clock import now_ms
from tidemill.errors import KafkaUnavailable, TidemillError
from tidemill.kafka.client import consumer
from tidemill.kafka.topics import ensure_topics
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import check_manifest, load_artifact
from tidemill.models.engine import load_engine
from tidemill.operations.deploying import Deploying
from tidemill.records import DeploymentRecord, decoder
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.deployments import append_deployment
from tidemill.streams.topics import deployments_topic, topic_specs
from tidemill.training.fitting import Fitted
from tidemill.training.parity import check_parity, expected_answers
from tidemill.training.stages.reading import read_evaluation
from tidemill_training.aliases import align_by_topic
from tidemill_training.app import Trained, deploy, train
from tidemill_training.logged import beside_version
from tidemill_training.mlmodel import with_served_outputs
from tidemill_training.seats import NewSeat, take_seat
from tidemill_training.tracking import Tracker

LATER = NOW_MS + 10**9
PROJECT = demo()


def scaled() -> Any:
    """A pipeline that converges on few rows."""
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-1.0), StandardScaler(), LogisticRegression())


MODEL = dataclasses.replace(PROJECT.models["big_tip"], pipeline=scaled)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A town with enough trips to learn from."""
    return town(tmp_path_factory.mktemp("offline"), 150)


@pytest.fixture(scope="module")
def trained(world: World) -> Trained:
    """The town's model, trained."""
    return train(PROJECT, str(FOLDER), MODEL, str(world.root), LATER, lambda _: None, lambda _: None)


def client(world: World) -> Any:
    """MLflow as a person would open it."""
    from mlflow import MlflowClient

    uri = Tracker.for_store(str(world.root)).uri
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.mark.slow
def test_the_artifact_can_be_served(world: World, trained: Trained) -> None:
    """What was stored loads by its digest, fits the declarations, and is checked row by row when it is loaded."""
    artifact = load_artifact(str(world.root), trained.artifact, trained.sha256)
    check_manifest(artifact.manifest, MODEL, {view.name: ViewKernel(view) for view in MODEL.views})
    assert artifact.manifest == trained.manifest
    assert len(artifact.manifest.golden) == 20
    assert load_engine(artifact).label == f"big_tip {trained.manifest.version}"


@pytest.mark.slow
def test_the_manifest_says_what_the_model_was_made_of(world: World, trained: Trained) -> None:
    """Rows, times, metrics, parity and the distributions drift is measured against."""
    manifest = trained.manifest
    assert [spec.name for spec in manifest.inputs] == MODEL.input_names
    assert set(manifest.reference) == {*MODEL.input_names, "prediction"}
    assert NOW_MS < manifest.trained_from < manifest.trained_until
    assert manifest.rows == manifest.metrics["examples"]
    held_out = {manifest.parity.rows, manifest.reference["prediction"].rows, manifest.calibration["outcome"].rows}
    assert held_out == {sum(manifest.reference["distance"].counts)}
    assert manifest.calibration["outcome"].observed == pytest.approx(manifest.metrics["positive_share"])
    assert 0 <= manifest.parity.max_abs_diff <= manifest.parity.tolerance == 1e-4
    assert manifest.parity.rows > 10
    assert (world.root / trained.artifact / "training.parquet").is_file()


@pytest.mark.slow
def test_the_run_and_the_champion(world: World, trained: Trained) -> None:
    """MLflow has the run with its metrics and files, and the registered version that carries the alias champion."""
    mlflow = client(world)
    run = mlflow.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert {name: run.data.metrics[name] for name in trained.manifest.metrics} == pytest.approx(trained.manifest.metrics)
    assert run.data.params["pipeline"] == "Pipeline"
    files = {file.path.removeprefix("model/") for file in mlflow.list_artifacts(trained.run_id, "model")}
    assert files == {"MLmodel", "input_example.json", "manifest.json", "model.onnx", "python_env.yaml", "requirements.txt"}
    champion = mlflow.get_model_version_by_alias("big_tip", "champion")
    assert (champion.run_id, champion.tags) == (trained.run_id, {"tidemill.version": trained.manifest.version})


STRANGER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
onnx = mlflow.onnx.load_model(sys.argv[2])
loaded = mlflow.pyfunc.load_model(sys.argv[2])
names = loaded.metadata.get_input_schema().input_names()
rows = pd.DataFrame(json.loads(sys.argv[3]), columns=names, dtype="float32")
found = loaded.predict(rows[names[::-1]])
print(json.dumps([names, list(loaded.input_example.columns), [output.name for output in onnx.graph.output], list(found), found.iloc[:, 0].tolist()]))
"""


@pytest.mark.slow
def test_mlflow_loads_what_was_registered(world: World, trained: Trained) -> None:
    """By its alias, as ONNX and as a function of a data frame, whose columns may stand in any order: the answers are those that are served."""
    artifact = load_artifact(str(world.root), trained.artifact, trained.sha256)
    rows, names = [row.inputs for row in artifact.manifest.golden], [item.name for item in artifact.manifest.inputs]
    arguments = [Tracker.for_store(str(world.root)).uri, "models:/big_tip@champion", json.dumps(rows)]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", STRANGER, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    *said, found = json.loads(done.stdout)
    assert said == [names, names, ["probability"], ["probability"]]
    assert found == pytest.approx([row.output for row in artifact.manifest.golden], abs=1e-6)  # of many rows at once: another last bit
    params = client(world).get_run(trained.run_id).data.params
    assert (params["logisticregression__C"], params["simpleimputer__fill_value"]) == ("1.0", "-1.0")


def test_a_regressor_keeps_its_output() -> None:
    """It has one already."""
    assert with_served_outputs(b"as it is", "value") == b"as it is"


@pytest.mark.slow
def test_the_next_version_becomes_the_champion(world: World, trained: Trained) -> None:
    """A second training is another version of the same model, and the alias moves on."""
    again = train(PROJECT, str(FOLDER), MODEL, str(world.root), LATER, lambda _: None, lambda _: None)
    assert again.manifest.version > trained.manifest.version
    mlflow = client(world)
    assert mlflow.get_model_version_by_alias("big_tip", "champion").run_id == again.run_id
    assert len(mlflow.search_model_versions("name='big_tip'")) >= 2
    kept = train(PROJECT, str(FOLDER), MODEL, str(world.root), LATER, lambda _: None)  # stored, not deployed
    assert mlflow.get_model_version_by_alias("big_tip", "challenger").run_id == kept.run_id
    assert mlflow.get_model_version_by_alias("big_tip", "champion").run_id == again.run_id


@pytest.mark.slow
def test_the_run_says_what_was_measured_and_on_which_data(world: World, trained: Trained) -> None:
    """The learning curve by step, the metrics of a constant answer, the identity of the data set, the report and the plots."""
    mlflow = client(world)
    evaluation = read_evaluation(str(world.root), "big_tip", trained.manifest.version)
    points = {metric.step: metric.value for metric in mlflow.get_metric_history(trained.run_id, "learning_log_loss")}
    assert points == pytest.approx({point.rows: point.loss for point in evaluation.learning})
    run = mlflow.get_run(trained.run_id)
    assert run.data.metrics["baseline_auc"] == 0.5
    assert run.data.metrics["skill"] == pytest.approx(evaluation.skill)
    (dataset,) = run.inputs.dataset_inputs
    data = json.loads((world.root / trained.artifact / "data.json").read_text())
    assert data["digest"].startswith(dataset.dataset.digest)
    assert json.loads(dataset.dataset.source)["archive"] == data["archive"]
    assert data["archive"]["trips"]["positions"].keys() >= {"0"}
    files = {file.path for folder in ("report", "plots") for file in mlflow.list_artifacts(trained.run_id, folder)}
    assert files == {
        "report/report.html",
        "report/evaluation.json",
        *(f"plots/{name}.svg" for name in ("roc", "calibration", "learning", "importance")),
    }


def test_a_run_that_was_begun_is_gone_on_with(world: World, trained: Trained) -> None:
    """A recording that was ended and is done again makes no second run and no second version."""
    artifact = load_artifact(str(world.root), trained.artifact, trained.sha256)
    mlflow = client(world)
    before = len(mlflow.search_model_versions("name='big_tip'"))
    tracker = Tracker.for_store(str(world.root))
    assert tracker.record(*artifact, {"pipeline": "Pipeline"}, beside_version(str(world.root), artifact.manifest), "past") == trained.run_id
    assert len(mlflow.search_model_versions("name='big_tip'")) == before
    assert mlflow.get_model_version_by_alias("big_tip", "past").run_id == trained.run_id


def test_a_regressor_is_trained(world: World) -> None:
    """A model of a value goes the same way."""
    notes: list[str] = []
    made = train(PROJECT, str(FOLDER), PROJECT.models["fare"], str(world.root), LATER, notes.append)
    assert made.manifest.output == "value"
    assert set(made.manifest.metrics) == {"mae", "mae_error", "rmse", "examples"}
    assert any(note.endswith("examples; reading 1 views as they were") for note in notes)


def test_a_twin_that_differs_is_refused(trained: Trained, world: World) -> None:
    """Beyond the tolerance there is no model; the error has the difference."""
    engine = load_engine(load_artifact(str(world.root), trained.artifact, trained.sha256))
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(50, len(trained.manifest.inputs))).astype(np.float32)
    labels = (matrix[:, 0] > 0).astype(float)
    other = make_pipeline(SimpleImputer(), LogisticRegression()).fit(matrix, labels)
    from tidemill.training.dataset import TrainingSet

    holdout = TrainingSet(matrix, labels, np.arange(50), ["s"] * 50, trained.manifest.inputs)
    fitted = Fitted(other, True, {}, holdout, np.zeros(50, np.float32))
    with pytest.raises(
        TidemillError,
        match=r"differ on \d+ of 50 rows held out, such as [0-9.e-]+ for [0-9.e-]+; 0.0001 is allowed, though no step alone differs; use another",
    ):
        check_parity(MODEL, fitted, expected_answers(MODEL, fitted), engine)


def test_nothing_is_stored_when_it_fails(tmp_path: Path) -> None:
    """A training that stops leaves neither model nor run."""
    world = town(tmp_path, 60)
    unconvertible = dataclasses.replace(MODEL, pipeline=lambda: make_pipeline(scaled()[0], StandardScaler(), _Unknown()))
    with pytest.raises(TidemillError, match="skl2onnx cannot convert"):
        train(PROJECT, str(FOLDER), unconvertible, str(world.root), LATER, lambda _: None)
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "mlflow").exists()


class _Unknown(LogisticRegression):  # type: ignore[misc]
    """An estimator of a project's own, which skl2onnx does not know."""


def test_where_mlflow_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLFLOW_TRACKING_URI is taken as it is; otherwise a database lies beside a local store, or here beside a remote one."""
    assert Tracker.for_store(str(tmp_path)).uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    monkeypatch.chdir(tmp_path)
    assert Tracker.for_store("s3://bucket/x").uri == f"sqlite:///{tmp_path}/.tidemill/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    assert Tracker.for_store(str(tmp_path)) == Tracker("http://there", None)


def test_a_tracking_server_that_fails(tmp_path: Path, trained: Trained) -> None:
    """MLflow's own errors become one of ours, with the address."""
    (tmp_path / "file").write_text("")
    tracker = Tracker(f"sqlite:///{tmp_path}/file/mlflow.db", None)
    with pytest.raises(TidemillError, match=r"MLflow at sqlite:///.*/file/mlflow.db failed: .*; start it, or correct MLFLOW_TRACKING_URI"):
        tracker.record(trained.manifest, b"", {})


def run(world: World, kafka: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`python -m tidemill_training`, as a process."""
    environment = {
        "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT / 'services'}", "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "TIDEMILL_OFFLINE": str(world.root), "TIDEMILL_PROJECT": str(FOLDER),
    }  # fmt: skip
    command = [sys.executable, "-m", "tidemill_training", *arguments]
    return subprocess.run(command, env={**os.environ, **environment, **more}, capture_output=True, text=True, check=False)


@pytest.mark.integration
async def test_as_a_process(world: World, kafka: str) -> None:
    """It trains, says what came out, and announces the version; with --no-deploy it does not."""
    settings = KafkaSettings(bootstrap_servers=kafka)
    await ensure_topics(settings, topic_specs(PROJECT))
    stored = run(world, kafka, "big_tip", "--no-deploy", "--until", "2050-01-01")
    assert (stored.returncode, stored.stdout.splitlines()[-1]) == (0, "stored, not deployed"), stored.stderr
    told = world.root / "openlineage.jsonl"
    deployed = run(world, kafka, "big_tip", OPENLINEAGE__TRANSPORT__TYPE="file", OPENLINEAGE__TRANSPORT__APPEND="true",
                   OPENLINEAGE__TRANSPORT__LOG_FILE_PATH=str(told))  # fmt: skip
    assert (deployed.returncode, deployed.stdout.splitlines()[-1]) == (0, "deployed"), deployed.stderr
    assert "auc " in deployed.stdout
    (record,) = await announced(settings)
    load_artifact(str(world.root), record.artifact, record.sha256)
    assert record.version in deployed.stdout
    begun, done = [json.loads(line) for line in told.read_text().splitlines()]
    assert (begun["eventType"], done["eventType"], done["job"]["name"]) == ("START", "COMPLETE", "train.big_tip")
    assert [one["facets"]["version"]["datasetVersion"] for one in done["outputs"]] == [record.version]
    assert {one["name"] for one in done["inputs"]} > {"views/zones", f"{world.root}/events/trips"}
    assert json.loads((world.root / record.artifact / "manifest.json").read_text())["metrics"] == record.metrics


@pytest.mark.integration
async def test_it_waits_for_the_offline_writer(kafka: str, tmp_path: Path, topic_prefix: str) -> None:
    """Training begins once the store has what the topics hold; when the writer does not come the error says what lags."""
    own = {name: dataclasses.replace(event, topic=f"{topic_prefix}.{name}", partitions=1) for name, event in PROJECT.events.items()}
    project = dataclasses.replace(PROJECT, name=topic_prefix, events=own, views={}, models={})
    settings, world = KafkaSettings(bootstrap_servers=kafka), World(project, tmp_path)
    await make_topics(kafka, project)
    events = list(project.events.values())
    await wait_archived(events, world.store, settings, timeout_seconds=0.1)
    world.publish(happened(20))
    await send(kafka, {place: [(row.key, row.value) for row in rows] for place, rows in world.events.items()})
    with pytest.raises(TidemillError, match=r"the archive has \w+ up to 0, but [\w.]+\[0\] goes up to \d+; see that the"):
        await wait_archived(events, world.store, settings, timeout_seconds=0.1)
    waiting = asyncio.create_task(wait_archived(events, world.store, settings))
    asked_at = now_ms()
    await asyncio.to_thread(world.write)
    assert await waiting >= asked_at


@pytest.mark.integration
async def test_a_version_that_cannot_be_announced(trained: Trained) -> None:
    """When Kafka went away during the training the error says that the version is stored."""
    with pytest.raises(
        KafkaUnavailable,
        match=r"big_tip \w+ is stored but cannot be announced: .*KafkaConnectionError.*; start it.*tidemill models deploy big_tip@",
    ):
        await deploy(PROJECT, trained, KafkaSettings(bootstrap_servers="127.0.0.1:1"))


@pytest.mark.integration
async def test_a_version_takes_a_seat_beside_the_champion(world: World, trained: Trained, kafka: str, topic_prefix: str) -> None:
    """As a shadow or a challenger of what serves, the champion stays; a command that goes on announces it again without harm."""
    project, settings, root = dataclasses.replace(PROJECT, name=topic_prefix), KafkaSettings(bootstrap_servers=kafka), str(world.root)
    deploying = Deploying(settings, project, root)
    await ensure_topics(settings, topic_specs(project))
    record = DeploymentRecord("big_tip", "v0", "models/big_tip/v0", "", 0)
    await append_deployment(settings, project.name, record, 30.0)
    for seat in (NewSeat("shadow"), NewSeat("challenger", 0.25), NewSeat("challenger", 0.25)):
        await take_seat(project, trained, settings, root, seat)
        (*_, last) = (await deploying.history())["big_tip"]
        (_, taken) = last.versions()
        assert (last.version, taken.version, taken.role, taken.share) == ("v0", trained.manifest.version, *seat)

    def aliases() -> set[str]:
        """Those of the trained version in MLflow, once they are moved."""
        assert align_by_topic(settings, project, root, "big_tip", print)
        (own,) = Tracker.for_store(root).asked(lambda client: client.search_model_versions(f"run_id='{trained.run_id}'"))
        found = Tracker.for_store(root).asked(lambda client: client.get_registered_model("big_tip").aliases)
        return {alias for alias, version in found.items() if str(version) == str(own.version)} & {"champion", "challenger"}

    assert "challenger" in await asyncio.to_thread(aliases)
    await take_seat(project, trained, settings, root, NewSeat())
    (*_, last) = (await deploying.history())["big_tip"]
    assert [item.version for item in last.versions()] == [trained.manifest.version]
    assert await asyncio.to_thread(aliases) == {"champion"}
    assert not await asyncio.to_thread(align_by_topic, KafkaSettings(bootstrap_servers="127.0.0.1:1"), project, root, "big_tip", print)
    with pytest.raises(KafkaUnavailable, match="is stored but cannot be announced"):
        await take_seat(project, trained, KafkaSettings(bootstrap_servers="127.0.0.1:1"), root, NewSeat("shadow"))


async def announced(settings: KafkaSettings) -> list[DeploymentRecord]:
    """All deployments of the project."""
    reader, place = consumer(settings), TopicPartition(deployments_topic(PROJECT.name), 0)
    await reader.start()
    try:
        reader.assign([place])
        reader.seek(place, 0)
        found = await reader.getmany(timeout_ms=2000)
        return [decoder(DeploymentRecord).decode(record.value or b"") for records in found.values() for record in records]
    finally:
        await reader.stop()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "error: unknown model 'nothing'; known: big_tip, fare"),
        (["big_tip", "--until", "2001-01-01"], "error: model 'big_tip' has no training examples"),
        (["big_tip", "--until", "soon"], "argument --until: invalid"),
    ],
)
def test_mistakes_end_without_a_traceback(world: World, kafka: str, arguments: list[str], says: str) -> None:
    """An error is one line with its mend, and the exit code is not 0."""
    result = run(world, kafka, *arguments)
    assert result.returncode in (1, 2)
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_the_town_is_the_same_every_time() -> None:
    """The tests' events are seeded."""
    assert happened(10, 3) == happened(10, 3)
