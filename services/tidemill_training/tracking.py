"""MLflow: a run for every training, a registered version for every model. Local by default, a server by MLFLOW_TRACKING_URI."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tidemill.errors import TidemillError
from tidemill.models.artifact import Manifest


@dataclass(frozen=True)
class Tracker:
    """Where runs and model versions are kept."""

    uri: str
    artifacts: str | None

    @classmethod
    def for_store(cls, offline_root: str) -> Tracker:
        """MLFLOW_TRACKING_URI if set, else a database beside a local offline store (or in .tidemill/ beside a remote one)."""
        given = os.environ.get("MLFLOW_TRACKING_URI")
        if given:
            return cls(given, None)
        folder = (Path(".tidemill") if "://" in offline_root else Path(offline_root)).absolute() / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())

    def record(self, manifest: Manifest, onnx: bytes, params: dict[str, Any]) -> str:
        """Logs a run with parameters, metrics and artifact, registers the version, and names it champion. Returns the run's id.

        Raises TidemillError when MLflow fails.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own dependencies' deprecations, none of them ours
            client_class, mlflow_error, sql_error = _mlflow()
            try:
                return self._record(client_class(tracking_uri=self.uri, registry_uri=self.uri), manifest, onnx, params)
            except (mlflow_error, sql_error, OSError) as error:
                raise TidemillError(
                    f"MLflow at {self.uri} failed: {str(error).strip()[:500]}",
                    mend="check MLFLOW_TRACKING_URI; the model is stored, but not tracked and not deployed: train again",
                ) from error

    def _record(self, client: Any, manifest: Manifest, onnx: bytes, params: dict[str, Any]) -> str:
        experiment = client.get_experiment_by_name(manifest.model)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(manifest.model, self.artifacts)
        run = client.create_run(experiment_id, run_name=manifest.version)
        run_id: str = run.info.run_id
        for name, value in params.items():
            client.log_param(run_id, name, value)
        for name, value in {**manifest.metrics, "parity_max_abs_diff": manifest.parity.max_abs_diff}.items():
            client.log_metric(run_id, name, value)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.onnx").write_bytes(onnx)
            (Path(folder) / "manifest.json").write_bytes(msgspec.json.encode(manifest))
            client.log_artifacts(run_id, folder, "model")
        client.set_terminated(run_id)
        self._register(client, manifest, f"{run.info.artifact_uri}/model", run_id)
        return run_id

    def _register(self, client: Any, manifest: Manifest, source: str, run_id: str) -> None:
        if not any(model.name == manifest.model for model in client.search_registered_models()):
            client.create_registered_model(manifest.model)
        version = client.create_model_version(manifest.model, source=source, run_id=run_id, tags={"tidemill.version": manifest.version})
        client.set_registered_model_alias(manifest.model, "champion", version.version)


def _mlflow() -> tuple[Any, type[Exception], type[Exception]]:
    """MLflow's client and the roots of what it raises. Importing it takes seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow import MlflowClient  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table of its database
    return MlflowClient, MlflowException, SQLAlchemyError
