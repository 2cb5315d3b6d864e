"""MLflow: a run and a registered version for every training. It is local by default; MLFLOW_TRACKING_URI names a server.

MLflow only records, and decides nothing. When it is away, the version is deployed all the same, and the next training that reaches MLflow
records it.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tidemill.clock import now_ms
from tidemill.errors import ArtifactError, TidemillError
from tidemill.models.artifact import Manifest, stored_artifact
from tidemill_training.logged import BesideVersion, beside_version
from tidemill_training.mlmodel import files_of
from tidemill_training.untracked import Notes, Untracked

T = TypeVar("T")

# The defaults of MLflow are 120 seconds and 7 attempts: four minutes of silence. The environment can set both.
_SECONDS, _REPEATS = "20", "2"
TAG = "tidemill.version"
NOTHING_BESIDE = BesideVersion()
_PARAM_CHARACTERS = 500  # the limit of older servers


def track(
    offline_root: str, manifest: Manifest, onnx: bytes, params: dict[str, Any], note: Callable[[str], None], alias: str = "champion"
) -> str | None:
    """Records a stored version in MLflow, after the versions that earlier trainings could not record. Returns the id of its run. `alias`: what
    the version is from now on, "champion" or "challenger".

    Returns None when MLflow fails: `note` gets the reason, and the next training records the version.
    """
    notes = Notes(offline_root)
    try:
        tracker = Tracker.for_store(offline_root)
        note(f"recording the run in MLflow at {tracker.uri}")
        record_earlier(tracker, offline_root, note)
        return tracker.record(manifest, onnx, params, beside_version(offline_root, manifest), alias)
    except (TidemillError, OSError) as error:
        notes.add(Untracked(manifest.model, manifest.version, params, alias))
        note(f"{manifest.model} {manifest.version} is not in MLflow yet: {error}")
        return None


def record_earlier(tracker: Tracker, offline_root: str, note: Callable[[str], None]) -> None:
    """Records the versions that MLflow missed, in order. Raises TidemillError, OSError."""
    notes = Notes(offline_root)
    for earlier in notes.all():
        _record_late(tracker, offline_root, earlier, note)
        notes.remove(earlier)


def _record_late(tracker: Tracker, offline_root: str, earlier: Untracked, note: Callable[[str], None]) -> None:
    try:
        artifact = stored_artifact(offline_root, earlier.model, earlier.version)
    except ArtifactError as error:
        note(f"{earlier.model} {earlier.version} can no longer be recorded: {error.message}")
    else:
        tracker.record(artifact.manifest, artifact.file, earlier.params, beside_version(offline_root, artifact.manifest), earlier.alias)
        note(f"{earlier.model} {earlier.version} is in MLflow now")


@dataclass(frozen=True)
class Tracker:
    """An MLflow. `uri`: where it stores runs and versions; `artifacts`: the folder for files of new experiments (None: MLflow's choice)."""

    uri: str
    artifacts: str | None

    @classmethod
    def for_store(cls, offline_root: str) -> Tracker:
        """MLFLOW_TRACKING_URI if it is set, else a database in a local offline store (in .tidemill/ if the store is remote)."""
        given = os.environ.get("MLFLOW_TRACKING_URI")
        if given:
            return cls(given, None)
        folder = _folder(offline_root)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())

    @classmethod
    def is_set(cls, offline_root: str) -> bool:
        """Whether there is one: a version was recorded here, or the environment names a server."""
        return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (_folder(offline_root) / "mlflow.db").is_file()

    def record(
        self, manifest: Manifest, onnx: bytes, params: dict[str, Any], beside: BesideVersion = NOTHING_BESIDE, alias: str = "champion"
    ) -> str:
        """Records a run with parameters, metrics by step, data set, model, report and plots, registers the version, and gives it the alias.
        Returns the run's id. A run that was begun before for this version is gone on with.

        Raises TidemillError when MLflow fails.
        """
        return self.asked(lambda client: self._record(client, manifest, onnx, params, beside, alias))

    def asked(self, work: Callable[[Any], T]) -> T:
        """Does something with a client of this MLflow. Raises TidemillError when MLflow fails."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations in the dependencies of MLflow
            client_class, mlflow_error, sql_error = _mlflow()
            try:
                return work(client_class(tracking_uri=self.uri, registry_uri=self.uri))
            except (mlflow_error, sql_error, OSError) as error:
                raise TidemillError(f"MLflow at {self.uri} failed: {str(error).strip()[:500]}", mend=_mend(self.uri, error)) from error

    def _record(self, client: Any, manifest: Manifest, onnx: bytes, params: dict[str, Any], beside: BesideVersion, alias: str) -> str:
        experiment = client.get_experiment_by_name(manifest.model)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(manifest.model, self.artifacts)
        begun = client.search_runs([experiment_id], f"tags.`{TAG}` = '{manifest.version}'", max_results=1)
        run = begun[0] if begun else client.create_run(experiment_id, run_name=manifest.version, tags={TAG: manifest.version})
        run_id: str = run.info.run_id
        client.log_batch(run_id, *_logged(beside.metrics(manifest), params))
        if (dataset := beside.dataset(manifest)) is not None:
            client.log_inputs(run_id, [dataset])
        for folder, files in {"model": files_of(manifest, onnx, run_id), **beside.files()}.items():
            _log_files(client, run_id, folder, files)
        client.set_terminated(run_id)
        self._register(client, manifest, f"{run.info.artifact_uri}/model", run_id, alias)
        return run_id

    def _register(self, client: Any, manifest: Manifest, source: str, run_id: str, alias: str) -> None:
        try:
            client.create_registered_model(manifest.model)
        except _mlflow()[1] as error:
            if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
                raise
        known = client.search_model_versions(f"name='{manifest.model}' and run_id='{run_id}'")
        tags = {TAG: manifest.version}
        version = known[0] if known else client.create_model_version(manifest.model, source=source, run_id=run_id, tags=tags)
        client.set_registered_model_alias(manifest.model, alias, version.version)


def _folder(offline_root: str) -> Path:
    return (Path(".tidemill") if "://" in offline_root else Path(offline_root)).absolute() / "mlflow"


def _log_files(client: Any, run_id: str, folder: str, files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as there:
        for name, content in files.items():
            (Path(there) / name).write_bytes(content)
        client.log_artifacts(run_id, there, folder)


def _mend(uri: str, error: Exception) -> str:
    """What to do about an MLflow that fails. An older database is upgraded by a command of MLflow's."""
    later = "the next training, and the next change of roles, makes up for it"
    if "out-of-date database schema" in str(error):
        return f"keep a copy of the database, then run: {shlex.quote(sys.executable)} -m mlflow db upgrade {shlex.quote(uri)}; {later}"
    return f"start it, or correct MLFLOW_TRACKING_URI; {later}"


def _logged(metrics: Sequence[tuple[str, float, int]], params: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Metrics and parameters as MLflow takes them, in one request."""
    from mlflow.entities import Metric, Param  # noqa: PLC0415 - as MLflow's client

    at_ms = now_ms()
    found = [Metric(name, value, at_ms, step) for name, value, step in metrics]
    return found, [Param(name, str(value)[:_PARAM_CHARACTERS]) for name, value in params.items()]


def _mlflow() -> tuple[Any, type[Exception], type[Exception]]:
    """MLflow's client, and the root classes of its errors. The import takes seconds, so it is done here."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _SECONDS)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _REPEATS)
    from mlflow import MlflowClient  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # at INFO it reports every table of its database
    return MlflowClient, MlflowException, SQLAlchemyError
