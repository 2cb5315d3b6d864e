"""One training, from the offline store to a deployment event."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
from aiokafka.errors import KafkaError

from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable
from tidemill.kafka.client import close_producer, producer
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Artifact, GoldenRow, Manifest, Parity, save_artifact
from tidemill.models.engine import Engine
from tidemill.offline.store import OfflineStore
from tidemill.records import DeploymentRecord, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.stats.histograms import Histogram, reference
from tidemill.streams.topics import deployments_topic
from tidemill_training.dataset import TrainingSet, build
from tidemill_training.fitting import Fitted, check_parity, fit, to_onnx
from tidemill_training.tracking import Tracker

GOLDEN_ROWS = 20
ANNOUNCE_SECONDS = 30.0  # nobody watches a command's health, so it waits for nothing without limit


@dataclass(frozen=True)
class Trained:
    """A trained version, not yet deployed."""

    manifest: Manifest
    artifact: str
    sha256: str
    run_id: str


def train(project: Project, spec: str, model: Model, offline_root: str, until_ms: int, note: Callable[[str], None]) -> Trained:
    """Builds the training set, fits, converts, proves parity, stores the artifact and tracks the run. `note` hears of progress.

    Raises TidemillError when there are no examples, or ONNX and scikit-learn disagree.
    """
    store = OfflineStore(offline_root)
    examples = build(project, spec, model, store, until_ms, note)
    note(f"fitting on {len(examples):,} rows of {len(examples.inputs)} inputs")
    fitted = fit(model, examples)
    note("converting to ONNX and comparing")
    onnx = to_onnx(fitted.pipeline, len(examples.inputs), probability=fitted.probability)
    draft = _manifest(model, examples, fitted, onnx)
    engine = Engine(Artifact(draft, onnx))
    manifest = msgspec.structs.replace(draft, parity=check_parity(fitted, engine), golden=_golden(engine, fitted))
    artifact, manifest_sha256 = save_artifact(offline_root, manifest, onnx, {"training.parquet": examples.to_parquet()})
    run_id = Tracker.for_store(offline_root).record(manifest, onnx, _params(fitted, until_ms))
    return Trained(manifest, artifact, manifest_sha256, run_id)


async def deploy(project: Project, trained: Trained, kafka: KafkaSettings) -> None:
    """Announces the version; inference swaps to it when it has loaded and checked it. Raises KafkaUnavailable."""
    manifest = trained.manifest
    record = DeploymentRecord(manifest.model, manifest.version, trained.artifact, trained.sha256, _now_ms(), manifest.metrics)
    client = producer(kafka)
    try:
        async with asyncio.timeout(ANNOUNCE_SECONDS):
            await client.start()
            await client.send_and_wait(deployments_topic(project.name), encode(record), key=manifest.model.encode(), partition=0)
    except (KafkaError, TimeoutError) as error:
        raise KafkaUnavailable(
            f"{manifest.model} {manifest.version} is stored but cannot be announced: {type(error).__name__} {error}".rstrip(),
            mend="start Kafka, or correct KAFKA_BOOTSTRAP_SERVERS, and train again",
        ) from error
    finally:
        await close_producer(client)


def _manifest(model: Model, examples: TrainingSet, fitted: Fitted, onnx: bytes) -> Manifest:
    created = _now_ms()
    return Manifest(
        model=model.name,
        version=time.strftime("%Y%m%dT%H%M%S", time.gmtime(created / 1000)) + f"{created % 1000:03d}",
        created=created,
        inputs=examples.inputs,
        output="probability" if fitted.probability else "value",
        definitions={view.name: ViewKernel(view).definition for view in model.views},
        trained_from=int(examples.times_ms[0]),
        trained_until=int(examples.times_ms[-1]),
        rows=len(examples),
        metrics=fitted.metrics,
        parity=Parity(0.0, 0, 0.0),
        reference=_reference(examples, fitted),
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
    )


def _reference(examples: TrainingSet, fitted: Fitted) -> dict[str, Histogram]:
    """What drift is measured against: the inputs of all examples, and what a model that had not seen them predicted for the holdout."""
    histograms = {spec.name: reference(examples.matrix[:, i], category=spec.kind == "category") for i, spec in enumerate(examples.inputs)}
    return histograms | {"prediction": reference(np.asarray(fitted.holdout_output))}


def _golden(engine: Engine, fitted: Fitted) -> list[GoldenRow]:
    """Some held-out rows and what the model answered: run again wherever it is loaded."""
    rows = fitted.holdout.matrix[:: max(1, len(fitted.holdout) // GOLDEN_ROWS)][:GOLDEN_ROWS]
    return [GoldenRow([None if math.isnan(value) else value for value in row.tolist()], engine.predict(row)) for row in rows]


def _params(fitted: Fitted, until_ms: int) -> dict[str, object]:
    return {"pipeline": type(fitted.pipeline).__name__, "until_ms": until_ms, "holdout_rows": len(fitted.holdout)}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
