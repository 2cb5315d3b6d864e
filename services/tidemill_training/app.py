"""One training, from the offline store to a deployment event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from tidemill.clock import now_ms
from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import KafkaRefused, KafkaUnavailable
from tidemill.models.artifact import Manifest, save_artifact
from tidemill.offline.store import OfflineStore
from tidemill.records import DeploymentRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.deployments import append_deployment
from tidemill.training.dataset import build
from tidemill.training.fitting import Fitted
from tidemill.training.made_with import FILE as MADE_WITH
from tidemill.training.made_with import made_with
from tidemill.training.version import make_version
from tidemill_training.tracking import track

ANNOUNCE_SECONDS = 30.0  # a command has no health check that shows a wait, so every wait of it has a limit


@dataclass(frozen=True)
class Trained:
    """A trained version. `run_id`: its run in MLflow (None: not yet, or MLflow could not be reached)."""

    manifest: Manifest
    artifact: str
    sha256: str
    run_id: str | None


def train(
    project: Project,
    spec: str,
    model: Model,
    offline_root: str,
    until_ms: int,
    note: Callable[[str], None],
    stored: Callable[[Trained], None] = lambda _: None,
    labels: Path | None = None,
) -> Trained:
    """Builds the training set, fits, converts, proves parity, stores the artifact, calls `stored`, and tracks the run. MLflow only records,
    so a version need not wait for it. `note` gets messages about progress, and one if MLflow cannot be reached. `labels`: see `build`.

    Raises TidemillError when there are no examples, or ONNX and scikit-learn disagree, and what `stored` raises, after the run is tracked.
    """
    store = OfflineStore(offline_root)
    examples = build(project, spec, model, store, until_ms, note, labels)
    made = make_version(model, examples, now_ms(), note)
    manifest, onnx = made.artifact
    recorded = made_with(model, spec, examples, until_ms, own_labels=labels is not None)
    beside = {**made.beside, "training.parquet": examples.to_parquet(), MADE_WITH: msgspec.json.format(msgspec.json.encode(recorded))}
    artifact, manifest_sha256 = save_artifact(offline_root, manifest, onnx, beside)
    trained = Trained(manifest, artifact, manifest_sha256, None)
    try:
        stored(trained)
    finally:
        run_id = track(offline_root, manifest, onnx, _params(made.fitted, until_ms), note)
    return replace(trained, run_id=run_id)


async def deploy(project: Project, trained: Trained, kafka: KafkaSettings) -> None:
    """Announces the version. Inference loads and checks it, then serves it. Raises KafkaUnavailable."""
    manifest = trained.manifest
    record = DeploymentRecord(manifest.model, manifest.version, trained.artifact, trained.sha256, now_ms(), manifest.metrics)
    try:
        await append_deployment(kafka, project.name, record, ANNOUNCE_SECONDS)
    except (KafkaRefused, KafkaUnavailable) as error:
        raise KafkaUnavailable(
            f"{manifest.model} {manifest.version} is stored but cannot be announced: {error.message}", mend=f"{error.mend}, and train again"
        ) from error


def _params(fitted: Fitted, until_ms: int) -> dict[str, object]:
    """What the run of a training is remembered by: the pipeline's own parameters too, as far as they are plain values."""
    own = {name: value for name, value in fitted.pipeline.get_params().items() if isinstance(value, str | int | float | bool)}
    return {"pipeline": type(fitted.pipeline).__name__, "until_ms": until_ms, "holdout_rows": len(fitted.holdout), **own}
