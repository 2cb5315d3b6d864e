"""What the tests of the request path need around a service: entities in the store, models in the offline store, deployments."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import redis
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import is_classifier

from tidemill.declarations import FeatureView, Model
from tidemill.declarations.project import Project, load_project
from tidemill.kernel.fold import LogEntry, PartitionFold, empty_fence, entry_decoder
from tidemill.kernel.keys import entity_key
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Artifact, GoldenRow, Manifest, ModelInput, Output, Parity, inputs_of, save_artifact
from tidemill.models.engine import Engine
from tidemill.online.keys import fence_key, state_key
from tidemill.records import DeploymentRecord, ViewRecord, encode

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
PAYMENTS = ["card", "cash"]


@cache
def demo() -> Project:
    """The tests' project."""
    return load_project(Path(__file__).parent / "demo_project")


def trip(at: int, zone: str, fare: float = 10.0, tip: float | None = None, driver: int = 1, id: str | None = None) -> dict[str, Any]:
    """An event of the tests' project."""
    return {"at": at, "zone": zone, "fare": fare, "tip": tip, "driver": driver, "id": id}


class Store:
    """Folds events into a real Redis, as feature computation does: it begins every partition, then one batch per call of `apply`."""

    def __init__(self, url: str, project: Project | None = None) -> None:
        self.project = project or demo()
        self.client = redis.Redis.from_url(url)
        self.folds: dict[tuple[str, int], PartitionFold] = {}
        self.states: dict[tuple[str, int], dict[bytes, EntityState]] = {}
        self._sent = 0
        self.begin()

    def begin(self) -> None:
        """Gives every partition that has none its first fence."""
        for view in self.project.views.values():
            for partition in range(view.partitions):
                self.client.set(fence_key(self.project.name, view.log, partition), empty_fence(ViewKernel(view)).encode(), nx=True)

    def get(self, key: bytes) -> bytes:
        """What lies under a Redis key."""
        value = self.client.get(key)
        assert isinstance(value, bytes)
        return value

    def apply(self, events: Sequence[dict[str, Any]]) -> None:
        """Writes what the events change, fences last, in one transaction."""
        pipe = self.client.pipeline(transaction=True)
        for view in self.project.views.values():
            for partition, entries in self._entries(view, events).items():
                values, fence = self._fold(view, partition, entries)
                pipe.mset(values)
                pipe.set(*fence)
        pipe.execute()

    def _entries(self, view: FeatureView, events: Sequence[dict[str, Any]]) -> dict[int, list[LogEntry]]:
        decode, found = entry_decoder(view), dict[int, list[LogEntry]]()
        for event in events:
            key = entity_key(event[view.key.fields[0]])
            partition = zlib.crc32(key) % view.partitions
            values = {name: event[name] for name in view.value_fields}
            self._sent += 1
            record = encode(ViewRecord(event["at"], event["at"], (0, self._sent), values, event["id"]))
            entries = found.setdefault(partition, [])
            entries.append(decode(self._fold_of(view, partition).fence.next + len(entries), key, record))
        return found

    def _fold_of(self, view: FeatureView, partition: int) -> PartitionFold:
        place = (view.name, partition)
        return self.folds.setdefault(place, PartitionFold.start(ViewKernel(view)))

    def _fold(self, view: FeatureView, partition: int, entries: list[LogEntry]) -> tuple[dict[bytes, bytes], tuple[bytes, bytes]]:
        fold, states = self._fold_of(view, partition), self.states.setdefault((view.name, partition), {})
        touched = fold.advance(entries, states).touched
        name = self.project.name
        values = {state_key(name, view.log, partition, key): fold.kernel.encode(states[key]) for key in touched}
        return values, (fence_key(name, view.log, partition), fold.fence.encode())


def trained(model: Model, version: str = "v1", seed: int = 0) -> Artifact:
    """A version of a model, really trained (on random rows) and converted."""
    inputs = _inputs(model)
    random = np.random.default_rng(seed)
    rows = random.normal(size=(200, len(inputs))).astype(np.float32) * 10
    rows[random.random(rows.shape) < 0.1] = np.nan
    score = np.nan_to_num(rows).sum(axis=1) + random.normal(scale=60, size=len(rows))
    pipeline = model.pipeline()
    classifier = is_classifier(pipeline)
    pipeline.fit(rows, score > 0 if classifier else score)
    options = {id(pipeline): {"zipmap": False}} if classifier else None
    converted = to_onnx(pipeline, initial_types=[("features", FloatTensorType([None, len(inputs)]))], options=options)
    onnx: bytes = converted.SerializeToString()
    output: Output = "probability" if classifier else "value"
    engine = Engine.of_onnx(model.name, onnx, len(inputs), output)
    manifest = Manifest(
        model=model.name,
        version=version,
        created=NOW_MS,
        inputs=inputs,
        output=output,
        definitions={view.name: ViewKernel(view).definition for view in model.views},
        trained_from=NOW_MS - 1000,
        trained_until=NOW_MS,
        rows=len(rows),
        metrics={},
        parity=Parity(0.0, 0, 1e-4),
        reference={},
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        golden=[GoldenRow([None if np.isnan(x) else x for x in row.tolist()], engine.predict(row)) for row in rows[:5]],
    )
    return Artifact(manifest, onnx)


def _inputs(model: Model) -> list[ModelInput]:
    return inputs_of(model.plan, {column.name: PAYMENTS for column in model.plan if column.kind in ("text", "category")})


def saved(offline_root: str, artifact: Artifact) -> DeploymentRecord:
    """Saves a version and returns the deployment that makes it serve."""
    folder, digest = save_artifact(offline_root, artifact.manifest, artifact.file)
    return DeploymentRecord(artifact.manifest.model, artifact.manifest.version, folder, digest, NOW_MS)
