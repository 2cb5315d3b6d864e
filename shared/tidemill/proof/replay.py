"""Replay: recompute a logged prediction from Parquet and compare it bit for bit with the answer.

The stamp says which records each view had applied. Folding exactly these records, and reading at the time of the request, gives the inputs.
The model version that answered gives the output.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError, UnknownModel
from tidemill.kernel.keys import partition_of
from tidemill.kernel.served import serve
from tidemill.kernel.view import Reading, ViewKernel
from tidemill.models.artifact import check_manifest, model_as_trained, stored_artifact
from tidemill.models.engine import load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.names import LogName, parse_log
from tidemill.offline.asked import asked_log, partition_end
from tidemill.offline.history import Question, answer
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import entities_of_row, stamp_of_row
from tidemill.records import PredictionRecord, StampEntry


@dataclass(frozen=True)
class ReplayDifference:
    """One number that differs. `name`: the name of an input, or "output"."""

    name: str
    logged: float | None
    recomputed: float | None


@dataclass(frozen=True)
class Replayed:
    """A prediction, and every number that differs when it is recomputed."""

    prediction: PredictionRecord
    differences: list[ReplayDifference]

    @property
    def equal(self) -> bool:
        """Whether every input and the output are the same bits."""
        return not self.differences


def replay(
    project: Project, store: OfflineStore, predictions: Sequence[PredictionRecord], note: Callable[[str], None] = lambda _: None
) -> list[Replayed]:
    """Recomputes predictions, in their order. Raises TidemillError when a model version or a view's definition is no longer there."""
    by_version: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, prediction in enumerate(predictions):
        by_version[prediction.model, prediction.version].append(i)
    results: dict[int, Replayed] = {}
    for (model, version), places in by_version.items():
        note(f"{model} {version}: {len(places):,} predictions")
        replayer = Replayer(project, store, model, version)
        results |= zip(places, replayer.run([predictions[i] for i in places]), strict=True)
    return [results[i] for i in range(len(predictions))]


def logged(store: OfflineStore, ids: Sequence[str] | None = None, sample: int | None = None) -> list[PredictionRecord]:
    """Logged predictions: those of the ids, or a sample spread evenly over the log, or all."""
    if sample is not None and ids is None:
        known = store.predictions(["id"])["id"]  # of predictions outside the sample only the id is read
        if sample < len(known):
            ids = known.take(np.linspace(0, len(known) - 1, sample).astype(np.int64)).to_pylist()
    table = store.predictions(ids=ids)
    fields = [f for f in PredictionRecord.__struct_fields__ if f not in ("entities", "stamp")]
    rows = table.to_pylist()
    return [
        PredictionRecord(**{f: row[f] for f in fields}, entities=entities_of_row(row["entities"]), stamp=stamp_of_row(row["stamp"]))
        for row in rows
    ]


class Replayer:
    """Replays predictions of one model version."""

    def __init__(self, project: Project, store: OfflineStore, model: str, version: str) -> None:
        if model not in project.models:
            raise UnknownModel(model, list(project.models))
        self._store = store
        artifact = stored_artifact(store.url, model, version)
        declared = project.models[model]
        if project.catalogue:
            declared, kernels = model_as_trained(artifact.manifest, declared, map(ViewKernel, project.views.values()))
            self._kernels = {kernel.view.name: kernel for kernel in kernels}
        else:
            self._kernels = {view.name: ViewKernel(view) for view in declared.views}
            check_manifest(artifact.manifest, declared, self._kernels)
        self._engine = load_engine(artifact)
        self._inputs = ModelInputs(declared, artifact.manifest.categories)

    def run(self, predictions: Sequence[PredictionRecord]) -> list[Replayed]:
        """Recomputes all predictions in one pass over each partition of each view. It reads the records of their entities only."""
        by_entity = [prediction for prediction in predictions if prediction.entities]
        shown: list[list[Reading | None]] = [[] for _ in by_entity]  # one reading of each view; a model may have no view
        for place, (view, _) in enumerate(self._inputs.views):
            for readings, reading in zip(shown, self._readings(view, place, by_entity), strict=True):
                readings.append(reading)
        served = iter(shown)
        return [self.compare(prediction, next(served) if prediction.entities else None) for prediction in predictions]

    def _readings(self, view: FeatureView, place: int, predictions: Sequence[PredictionRecord]) -> list[Reading | None]:
        """The reading of a view that each prediction saw."""
        found: list[Reading | None] = [None] * len(predictions)
        asked: dict[tuple[LogName, int], list[tuple[int, bytes, int]]] = defaultdict(list)
        for i, prediction in enumerate(predictions):
            key = self._inputs.keys(prediction.entities)[place]
            if key is not None:
                seen = _stamped(prediction, view, key)
                asked[seen.view, seen.partition].append((i, key, seen.next))
        for (name, partition), wanted in asked.items():
            snapshot, last = self._store.snapshot(view_folder(name)), max(fence for _, _, fence in wanted)
            end = partition_end(snapshot, partition)
            if end < last:
                raise TidemillError(
                    f"log {name!r}, partition {partition}: the offline store ends at {end}, below what was served",
                    mend="wait for the offline writer, then replay again",
                )
            log = asked_log(snapshot, view, partition, {key for _, key, _ in wanted}, below=last)
            questions = [Question(log.rows_below(fence), key, predictions[i].time) for i, key, fence in wanted]
            for (i, _, _), reading in zip(wanted, answer(self._kernels[view.name], log, questions), strict=True):
                found[i] = reading
        return found

    def compare(self, prediction: PredictionRecord, readings: Sequence[Reading | None] | None) -> Replayed:
        """Recomputes one prediction from the readings of the model's views, in their order. None: its inputs came as a tensor."""
        vector = logged = vector_of(prediction.inputs)
        differences = []
        if readings is not None:
            views = [view for view, _ in self._inputs.views]
            served = [serve(view, reading, prediction.time) for view, reading in zip(views, readings, strict=True)]
            vector = vector_of(self._inputs.row(served, prediction.entities))
            for i in np.flatnonzero(vector.view(np.uint32) != logged.view(np.uint32)):
                if not (np.isnan(vector[i]) and np.isnan(logged[i])):
                    differences.append(ReplayDifference(self._inputs.plan[i].name, prediction.inputs[i], float(vector[i])))
        output = self._engine.predict(vector)
        if output != prediction.output:
            differences.append(ReplayDifference("output", prediction.output, output))
        return Replayed(prediction, differences)


def _stamped(prediction: PredictionRecord, view: FeatureView, key: bytes) -> StampEntry:
    """The fence of a view that a prediction saw for an entity. The log may have had another number of partitions than the view has now."""
    for entry in prediction.stamp:
        parsed = parse_log(entry.view)
        if parsed and parsed.view == view.plain_name and entry.partition == partition_of(key, parsed.partitions):
            return entry
    raise TidemillError(
        f"prediction {prediction.id} has no fence of view {view.name!r}, entity {key.decode()!r}",
        mend="its project has changed since: replay it with the project of that time",
    )
