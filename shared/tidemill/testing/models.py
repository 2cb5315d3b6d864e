"""The models of a world: training sets from its topics, versions from the project's pipelines, and predictions.

Needs the extra `inference`; training needs `training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tidemill.archive.rows import EventTable, event_table
from tidemill.declarations import FeatureView, Model
from tidemill.declarations.models import FeatureInput, RequestInput
from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, NotDeployed, UnknownModel
from tidemill.kernel.served import Served
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Artifact, Manifest, check_manifest
from tidemill.models.engine import Engine, load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.offline.tables import MirrorTable, mirror_tables
from tidemill.testing.lake import MemoryLake
from tidemill.testing.log import MemoryKafka
from tidemill.testing.values import FeatureValue, shown
from tidemill.training.dataset import TrainingSet, build


class Prediction(NamedTuple):
    """An answer of inference. `time_ms`: the request's time, epoch ms; `output_name`: "probability" or "value"; `features`: the inputs, by
    name."""

    model: str
    version: str
    time_ms: int
    output_name: str
    output: float
    features: dict[str, FeatureValue]


class Loaded(NamedTuple):
    """A loaded version."""

    manifest: Manifest
    engine: Engine
    inputs: ModelInputs


class Models:
    """Trains and predicts. `served(views, entities, time_ms)` gives the features from the store."""

    def __init__(
        self,
        project: Project,
        kernels: Mapping[str, ViewKernel],
        kafka: MemoryKafka,
        served: Callable[[Sequence[FeatureView], Sequence[bytes | None], int], list[Served]],
    ) -> None:
        self._project = project
        self._kernels = kernels
        self._kafka = kafka
        self._served = served
        self._loaded: dict[str, Loaded] = {}

    def lake(self) -> MemoryLake:
        """An offline store that has all topics up to their ends."""
        lake = MemoryLake()
        tables: list[EventTable | MirrorTable] = [event_table(self._project, event) for event in self._project.events.values()]
        for table in [*tables, *mirror_tables(self._project)]:
            mirror = lake.topic_table(table)
            mirror.open()
            read = {number: partition.records for number, partition in enumerate(self._kafka.partitions(table.topic))}
            moves = {(table.topic, number): (0, len(records)) for number, records in read.items()}
            mirror.append(table.rows_of(read), moves)
        return lake

    def training_set(self, name: str, until_ms: int) -> TrainingSet:
        """See `World.training_set`."""
        return build(self._project, None, self._declared(name), self.lake(), until_ms, lambda _progress: None)

    def train(self, name: str, until_ms: int) -> Manifest:
        """See `World.train`."""
        from tidemill.training.version import make_version  # noqa: PLC0415 - predicting does not need scikit-learn

        version = make_version(self._declared(name), self.training_set(name, until_ms), until_ms, lambda _progress: None)
        self.deploy(version.artifact)
        return version.artifact.manifest

    def deploy(self, artifact: Artifact) -> None:
        """See `World.deploy`."""
        manifest = artifact.manifest
        model = self._declared(manifest.model)
        check_manifest(manifest, model, self._kernels)
        self._loaded[model.name] = Loaded(manifest, load_engine(artifact), ModelInputs(model, manifest.categories))

    def predict(self, name: str, given: Mapping[str, Any], time_ms: int) -> Prediction:
        """See `World.predict`. The steps are those of inference: keys, one read, one row, one run."""
        self._declared(name)
        if name not in self._loaded:
            raise NotDeployed(name)
        manifest, engine, inputs = self._loaded[name]
        served = self._served([view for view, _ in inputs.views], inputs.keys(given), time_ms)
        output = engine.predict(vector_of(inputs.row(served, given)))
        if not math.isfinite(output):
            raise BadRequest(f"model {engine.label} gives no number for these inputs", mend="check the values that come with the request")
        values = {column.name: _shown(column, served, given, time_ms) for column in inputs.plan}
        return Prediction(manifest.model, manifest.version, time_ms, manifest.output, output, values)

    def _declared(self, name: str) -> Model:
        if name not in self._project.models:
            raise UnknownModel(name, list(self._project.models))
        return self._project.models[name]


def _shown(column: FeatureInput | RequestInput, served: Sequence[Served], given: Mapping[str, Any], time_ms: int) -> FeatureValue:
    if isinstance(column, FeatureInput):
        return shown(served[column.view], column.feature, time_ms)
    value = given[column.name]
    return FeatureValue(value, "NULL_VALUE" if value is None else "PRESENT", None)
