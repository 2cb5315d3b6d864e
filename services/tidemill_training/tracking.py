"""MLflow: a run and a registered version for every training. It is local by default; MLFLOW_TRACKING_URI names a server.

MLflow only records, and decides nothing. When it is away, the version is deployed all the same, and the next training that reaches MLflow
records it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.clock import now_ms
from tidemill.errors import ArtifactError, TidemillError
from tidemill.models.artifact import Manifest, stored_artifact
from tidemill_training.mlmodel import files_of
from tidemill_training.untracked import Notes, Untracked

# The defaults of MLflow are 120 seconds and 7 attempts: four minutes of silence. The environment can set both.
_SECONDS, _REPEATS = "20", "2"
_PARAM_CHARACTERS = 500  # the limit of older servers


def track(offline_root: str, manifest: Manifest, onnx: bytes, params: dict[str, Any], note: Callable[[str], None]) -> str | None:
    """Records a stored version in MLflow, after the versions that earlier trainings could not record. Returns the id of its run.

    Returns None when MLflow fails: `note` gets the reason, and the next training records the version.
    """
    notes = Notes(offline_root)
    try:
        tracker = Tracker.for_store(offline_root)
        note(f"recording the run in MLflow at {tracker.uri}")
        for earlier in notes.all():
            _record_late(tracker, offline_root, earlier, note)
            notes.remove(earlier)
        return tracker.record(manifest, onnx, params)
    except (TidemillError, OSError) as error:
        notes.add(Untracked(manifest.model, manifest.version, params))
        note(f"{manifest.model} {manifest.version} is not in MLflow yet: {error}")
        return None


def _record_late(tracker: Tracker, offline_root: str, earlier: Untracked, note: Callable[[str], None]) -> None:
    try:
        artifact = stored_artifact(offline_root, earlier.model, earlier.version)
    except ArtifactError as error:
        note(f"{earlier.model} {earlier.version} can no longer be recorded: {error.message}")
    else:
        tracker.record(artifact.manifest, artifact.onnx, earlier.params)
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
        folder = (Path(".tidemill") if "://" in offline_root else Path(offline_root)).absolute() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())

    def record(self, manifest: Manifest, onnx: bytes, params: dict[str, Any]) -> str:
        """Records a run with parameters, metrics and artifact, registers the version, and names it champion. Returns the run's id.

        Raises TidemillError when MLflow fails.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations in the dependencies of MLflow
            client_class, mlflow_error, sql_error = _mlflow()
            try:
                return self._record(client_class(tracking_uri=self.uri, registry_uri=self.uri), manifest, onnx, params)
            except (mlflow_error, sql_error, OSError) as error:
                raise TidemillError(
                    f"MLflow at {self.uri} failed: {str(error).strip()[:500]}",
                    mend="start it, or correct MLFLOW_TRACKING_URI; the next training records this version too",
                ) from error

    def _record(self, client: Any, manifest: Manifest, onnx: bytes, params: dict[str, Any]) -> str:
        experiment = client.get_experiment_by_name(manifest.model)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(manifest.model, self.artifacts)
        run = client.create_run(experiment_id, run_name=manifest.version)
        run_id: str = run.info.run_id
        parity = {"parity_max_abs_diff": manifest.parity.max_abs_diff, "parity_rows_on_threshold": float(manifest.parity.on_threshold)}
        client.log_batch(run_id, *_logged({**manifest.metrics, **parity}, params))
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files_of(manifest, onnx, run_id).items():
                (Path(folder) / name).write_bytes(content)
            client.log_artifacts(run_id, folder, "model")
        client.set_terminated(run_id)
        self._register(client, manifest, f"{run.info.artifact_uri}/model", run_id)
        return run_id

    def _register(self, client: Any, manifest: Manifest, source: str, run_id: str) -> None:
        try:
            client.create_registered_model(manifest.model)
        except _mlflow()[1] as error:
            if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client.create_model_version(manifest.model, source=source, run_id=run_id, tags={"tidemill.version": manifest.version})
        client.set_registered_model_alias(manifest.model, "champion", version.version)


def _logged(metrics: dict[str, float], params: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Metrics and parameters as MLflow takes them, in one request."""
    from mlflow.entities import Metric, Param  # noqa: PLC0415 - as MLflow's client

    at_ms = now_ms()
    found = [Metric(name, value, at_ms, 0) for name, value in metrics.items()]
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
