"""One training, from the offline store to a deployment event, stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tidemill.clock import now_ms
from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import KafkaRefused, KafkaUnavailable, TidemillError
from tidemill.models.artifact import Manifest, save_artifact
from tidemill.records import DeploymentRecord, Role
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.deployments import append_deployment
from tidemill.training.dataset import Note, TrainingSet
from tidemill.training.fitting import Fitted
from tidemill.training.made_with import FILE as MADE_WITH
from tidemill.training.made_with import MadeWith, made_with
from tidemill.training.stages.data import DATA, DataRecord
from tidemill.training.stages.evaluation import EVALUATION, REPORT, Evaluation
from tidemill.training.stages.files import digest_of
from tidemill.training.stages.forms import as_json
from tidemill.training.stages.records import AskedRun
from tidemill.training.stages.run import Run, StageOutput, Watch
from tidemill.training.version import Exported
from tidemill_training.stages import Stages, digest_of_file, in_force
from tidemill_training.tracking import track

ANNOUNCE_SECONDS = 30.0  # a command has no health check that shows a wait, so every wait of it has a limit


@dataclass(frozen=True)
class Trained:
    """A trained version. `run_id`: its run in MLflow (None: not yet, or MLflow could not be reached)."""

    manifest: Manifest
    artifact: str
    sha256: str
    run_id: str | None


class Choices(NamedTuple):
    """What a training may be told beside its model. `labels`: see `build`; `new`: go on with no earlier run; `created_ms`: the moment after
    which run and version are named (None: now); `champion`: the version that answers now, to be compared; `watch`: gets how far the
    stages, and the parts of long ones, are; `role`: of the new version, when it is deployed."""

    labels: Path | None = None
    new: bool = False
    created_ms: int | None = None
    champion: str | None = None
    watch: Watch | None = None
    ray: str | None = None
    role: Role = "champion"


class StoredAt(msgspec.Struct, frozen=True):
    """Where a version is stored, and the digest of its manifest."""

    artifact: str
    sha256: str


class Recorded(msgspec.Struct, frozen=True):
    """The run of a version in MLflow (None: not yet)."""

    run_id: str | None


def train(
    project: Project,
    spec: str,
    model: Model,
    offline_root: str,
    until_ms: int | None,
    note: Note,
    stored: Callable[[Trained], None] | None = None,
    choices: Choices | None = None,
) -> Trained:
    """Builds the training set, fits, converts, proves parity, stores the artifact, calls `stored`, and tracks the run. Each stage is kept, so
    the same call goes on where an earlier process was ended. MLflow only records, so a version need not wait for it. `until_ms`: None for the
    moment at which the run begins; `note` gets messages about progress, and one if MLflow cannot be reached.

    Raises TidemillError when there are no examples, or ONNX and scikit-learn disagree, OutOfMemory, and what `stored` raises, after the run
    is tracked.
    """
    choices = choices or Choices()
    asked = AskedRun(until_ms, digest_of_file(choices.labels), stored is not None, choices.role, digest_of(in_force(model)))
    with Run.begin(offline_root, model.name, spec, asked, note, new=choices.new, created_ms=choices.created_ms) as run:
        run.watch = choices.watch or run.watch
        stages = Stages(run, project, spec, model, offline_root, choices.labels, note, choices.ray)
        examples = stages.set()
        stages.check(examples)
        rows = stages.split(examples)
        stages.select(rows)
        stages.search(rows)
        fitted = stages.fit(rows)
        evaluation = stages.evaluate(rows, examples.value.data.digest, fitted, choices.champion)
        version = stages.export(rows, fitted)
        report = stages.report(evaluation)
        recorded = made_with(model, spec, rows.value, run.record.until_ms, stages.chosen, own_labels=choices.labels is not None)
        beside = Beside(rows.value.examples, examples.value.data, evaluation.value, report.value, recorded)
        trained = _store(run, offline_root, version, beside)
        try:
            if stored is not None:
                run.stage("deploy", as_json(bool), lambda: stored(trained) is None, lambda _: "announced", {"export": version.digest})
        finally:
            params = _params(fitted.value, run.record.until_ms, examples.value.data.digest)
            run_id = _tracked(run, offline_root, version, params, note)
        run.trained(trained.manifest.version)
    return replace(trained, run_id=run_id)


class Beside(NamedTuple):
    """What is stored beside a version."""

    examples: TrainingSet
    data: DataRecord
    evaluation: Evaluation
    report: str
    made_with: MadeWith

    def files(self) -> dict[str, bytes]:
        """Its files by name."""
        told = {
            EVALUATION: as_json(Evaluation).write(self.evaluation),
            DATA: as_json(DataRecord).write(self.data),
            MADE_WITH: as_json(MadeWith).write(self.made_with),
        }
        return {"training.parquet": self.examples.to_parquet(), REPORT: self.report.encode()} | {
            name: made or b"" for name, made in told.items()
        }


def _store(run: Run, offline_root: str, version: StageOutput[Exported], beside: Beside) -> Trained:
    manifest, onnx = version.value.artifact

    def stored() -> StoredAt:
        return StoredAt(*save_artifact(offline_root, manifest, onnx, {**version.value.beside, **beside.files()}))

    found = run.stage("store", as_json(StoredAt), stored, lambda made: made.artifact, {"export": version.digest}).value
    return Trained(manifest, found.artifact, found.sha256, None)


def _tracked(run: Run, offline_root: str, version: StageOutput[Exported], params: dict[str, Any], note: Note) -> str | None:
    """The id of the version's run in MLflow. It is asked for once: what MLflow misses now, the next training tells it."""

    asked = run.record.asked
    alias = "champion" if asked.deploy and asked.role == "champion" else "challenger"

    def tracked() -> Recorded:
        return Recorded(track(offline_root, *version.value.artifact, params, note, alias))

    told = run.stage("track", as_json(Recorded), tracked, lambda made: made.run_id or "not in MLflow yet", {"export": version.digest})
    return told.value.run_id


async def deploy(project: Project, trained: Trained, kafka: KafkaSettings) -> None:
    """Announces the version. Inference loads and checks it, then serves it. Raises KafkaUnavailable."""
    manifest = trained.manifest
    record = DeploymentRecord(manifest.model, manifest.version, trained.artifact, trained.sha256, now_ms(), manifest.metrics)
    try:
        await append_deployment(kafka, project.name, record, ANNOUNCE_SECONDS)
    except (KafkaRefused, KafkaUnavailable) as error:
        raise not_announced(manifest, error) from error


def not_announced(manifest: Manifest, error: TidemillError) -> KafkaUnavailable:
    """What to say when Kafka takes no deployment of a version that is stored."""
    return KafkaUnavailable(
        f"{manifest.model} {manifest.version} is stored but cannot be announced: {error.message}",
        mend=f"{error.mend}, then run: tidemill models deploy {manifest.model}@{manifest.version}",
    )


def _params(fitted: Fitted, until_ms: int, data: str) -> dict[str, object]:
    """What the run of a training is remembered by: the pipeline's own parameters too, as far as they are plain values."""
    own = {name: value for name, value in fitted.pipeline.get_params().items() if isinstance(value, str | int | float | bool)}
    return {"pipeline": type(fitted.pipeline).__name__, "until_ms": until_ms, "holdout_rows": len(fitted.holdout), "data": data, **own}
