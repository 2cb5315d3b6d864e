"""Replay: recompute a logged prediction from Parquet and compare it bit for bit with the answer.

The stamp says which records each view had applied, and in which version. Folding exactly these records, and reading at the time of the
request, gives the inputs. The model version that answered gives the output. With a catalogue, all of it is read as it was defined then: a
model may be declared no more, and a view be another one now.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np

from tidemill.declarations import FeatureView, Model
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError, TidemillError, UnknownModel
from tidemill.kernel.keys import partition_of
from tidemill.kernel.served import serve
from tidemill.kernel.view import Reading, ViewKernel
from tidemill.models.artifact import Artifact, model_as_trained, stored_artifact, stored_manifest
from tidemill.models.declared import as_declared
from tidemill.models.engine import Engine, load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.models.pipelines.packages import how_served
from tidemill.names import LogName, parse_log, version_name
from tidemill.offline.asked import asked_log, partition_end
from tidemill.offline.history import Question, answer
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import contents_of_row, entities_of_row, probabilities_of_row, stamp_of_row
from tidemill.proof.past import FOLLOWING_MS, Definition
from tidemill.records import PredictionRecord, StampEntry


@dataclass(frozen=True)
class ReplayDifference:
    """One number that differs. `name`: the name of an input, "output", or "probability of <class>"."""

    name: str
    logged: float | None
    recomputed: float | None


@dataclass(frozen=True)
class Replayed:
    """A prediction, and every number that differs when it is recomputed. `passed_over`: why it was not recomputed ("": it was)."""

    prediction: PredictionRecord
    differences: list[ReplayDifference] = field(default_factory=list)
    passed_over: str = ""

    @property
    def equal(self) -> bool:
        """Whether every input and the output are the same bits."""
        return not self.differences and not self.passed_over


def replay(
    project: Project,
    store: OfflineStore,
    predictions: Sequence[PredictionRecord],
    note: Callable[[str], None] = lambda _: None,
    history: Sequence[Definition] = (),
) -> list[Replayed]:
    """Recomputes predictions, in their order. `project`: what is in force now; `history`: what was, oldest first (none without a catalogue).

    Passed over are predictions that read a version of a view that was pruned, and those of a model that the history does not have. Raises
    TidemillError when a model version is no longer there, or, without a catalogue, a view's definition.
    """
    by_version: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, prediction in enumerate(predictions):
        by_version[prediction.model, prediction.version].append(i)
    made = lru_cache(maxsize=2)(partial(replayer_of, project, store))  # a log has few models; of one version each file is read once
    seen = {} if project.catalogue else _seen(made, predictions, by_version)
    results: dict[int, Replayed] = {}
    for (model, version), places in by_version.items():
        note(f"{model} {version}: {len(places):,} predictions")
        mine = [predictions[i] for i in places]
        if project.catalogue:
            found = _Past(project, history or [Definition(0, project)], store, model, version).run(mine)
        else:
            found = made(model, version).compared(mine, [seen[i] for i in places])
        if told := how_served(stored_manifest(store.url, model, version)[0]):
            note(f"{model} {version}: {told}")
        results |= zip(places, found, strict=True)
    return [results[i] for i in range(len(predictions))]


def _seen(
    made: Callable[[str, str], Replayer], predictions: Sequence[PredictionRecord], by_version: Mapping[tuple[str, str], list[int]]
) -> dict[int, Seen]:
    """What each prediction saw. Without a catalogue all versions of a model read the same views, which are folded once for all of them."""
    by_model: dict[str, list[int]] = defaultdict(list)
    for (model, _), places in by_version.items():
        by_model[model] += places
    seen: dict[int, Seen] = {}
    for model, places in by_model.items():
        mine = [predictions[i] for i in places]
        seen |= zip(places, made(model, mine[0].version).seen(mine), strict=True)
    return seen


def logged(
    store: OfflineStore, ids: Sequence[str] | None = None, sample: int | None = None, *, shadows: bool = False
) -> list[PredictionRecord]:
    """Logged predictions: those of the ids, or a sample spread evenly over the log, or all. `shadows`: those of shadows instead."""
    if sample is not None and ids is None:
        known = store.predictions(["id"], shadows=shadows)["id"]  # of predictions outside the sample only the id is read
        if sample < len(known):
            ids = known.take(np.linspace(0, len(known) - 1, sample).astype(np.int64)).to_pylist()
    table = store.predictions(ids=ids, shadows=shadows)
    fields = [f for f in PredictionRecord.__struct_fields__ if f not in ("entities", "stamp", "probabilities", "contents")]
    rows = table.to_pylist()
    return [
        PredictionRecord(
            **{f: row[f] for f in fields},
            entities=entities_of_row(row["entities"]),
            stamp=stamp_of_row(row["stamp"]),
            probabilities=probabilities_of_row(row.get("probabilities")),
            contents=contents_of_row(row.get("contents")),
        )
        for row in rows
    ]


def replayer_of(project: Project, store: OfflineStore, model: str, version: str) -> Replayer:
    """A replayer by one project, whatever was in force before. Raises UnknownModel, ArtifactError."""
    if model not in project.models:
        raise UnknownModel(model, list(project.models))
    artifact = stored_artifact(store.url, model, version)
    declared, kernels = as_declared(project, artifact.manifest)
    return Replayer(store, artifact, load_engine(artifact), declared, kernels)


Numbered = tuple[str, int]
"""A view and one of its versions."""
Seen = Sequence[Reading | None] | None
"""A reading of each view of a model, in their order. None: the inputs came as a tensor."""


class _Past:
    """Recomputes predictions of one model version, each by what was in force when it was answered."""

    def __init__(self, now: Project, history: Sequence[Definition], store: OfflineStore, model: str, version: str) -> None:
        self._history, self._store, self._model = history, store, model
        self._artifact = stored_artifact(store.url, model, version)
        self._engine = load_engine(self._artifact)
        self._left = _versions(now)
        self._versions = [_versions(item.project) for item in history]
        self._times = [item.since_ms for item in history]

    def run(self, predictions: Sequence[PredictionRecord]) -> list[Replayed]:
        """A prediction is equal if it is by one of the definitions by which it may have been answered."""
        if not any(self._model in item.project.models for item in self._history):
            return [Replayed(prediction, passed_over=f"the catalogue never had model {self._model}") for prediction in predictions]
        results = {i: Replayed(prediction, passed_over=why) for i, prediction in enumerate(predictions) if (why := self._gone(prediction))}
        tries = [self._tries(prediction) for prediction in predictions]
        for turn in range(max(map(len, tries), default=0)):
            groups: dict[tuple[int, frozenset[Numbered]], list[int]] = defaultdict(list)
            for i, prediction in enumerate(predictions):
                if turn < len(tries[i]) and (i not in results or not results[i].equal):
                    groups[tries[i][turn], _read(prediction)].append(i)
            for (place, read), places in groups.items():
                for i, found in zip(places, self._run_by(place, read, [predictions[i] for i in places]), strict=True):
                    if i not in results or found.equal or results[i].passed_over:
                        results[i] = found
        return [results[i] for i in range(len(predictions))]

    def _gone(self, prediction: PredictionRecord) -> str:
        """Why a prediction cannot be recomputed; "" if it can."""
        gone = sorted(_read(prediction) - self._left)
        return f"{', '.join(version_name(*numbered) for numbered in gone)} was pruned" if gone else ""

    def _tries(self, prediction: PredictionRecord) -> list[int]:
        """Places in the history by which a prediction may have been answered, the likeliest first."""
        if self._gone(prediction):
            return []
        moments = [prediction.served + shift_ms for shift_ms in (0, FOLLOWING_MS, -FOLLOWING_MS)]
        likely = dict.fromkeys(max(bisect_right(self._times, moment) - 1, 0) for moment in moments)
        having = [place for place, versions in enumerate(self._versions) if _read(prediction) <= versions]
        return [place for place in likely if place in having] or having[-1:]

    def _run_by(self, place: int, read: frozenset[Numbered], predictions: Sequence[PredictionRecord]) -> list[Replayed]:
        """By one place of the history. `read`: the versions of views that the predictions read."""
        item, numbers = self._history[place], dict(read)
        had = [other.project.models[self._model] for other in self._history if self._model in other.project.models]
        views = [view for view in item.project.views.values() if numbers.get(view.plain_name, view.version) == view.version]
        declared = item.project.models.get(self._model, had[-1])
        try:
            model, kernels = model_as_trained(self._artifact.manifest, declared, map(ViewKernel, views))
        except ArtifactError as error:
            return [Replayed(prediction, passed_over=error.message) for prediction in predictions]
        return Replayer(self._store, self._artifact, self._engine, model, kernels).run(predictions)


def _versions(project: Project) -> set[Numbered]:
    return {(view.plain_name, view.version) for view in project.views.values()}


def _read(prediction: PredictionRecord) -> frozenset[Numbered]:
    """The versions of views that a prediction read."""
    logs = [parse_log(entry.view) for entry in prediction.stamp]
    return frozenset((log.view, log.version) for log in logs if log is not None)


class Replayer:
    """Replays predictions of one model version. `model`: over the views that the version was trained on; `kernels`: of these."""

    def __init__(self, store: OfflineStore, artifact: Artifact, engine: Engine, model: Model, kernels: Sequence[ViewKernel]) -> None:
        self._store, self._engine = store, engine
        self._kernels = {kernel.view.name: kernel for kernel in kernels}
        self._inputs = ModelInputs(model, artifact.manifest.categories)

    def run(self, predictions: Sequence[PredictionRecord]) -> list[Replayed]:
        """Recomputes all predictions."""
        return self.compared(predictions, self.seen(predictions))

    def seen(self, predictions: Sequence[PredictionRecord]) -> list[Seen]:
        """What predictions saw, of this version or of others over the same views, in one pass over each partition of each view. It reads the records of
        their entities only."""
        by_entity = [prediction for prediction in predictions if prediction.entities]
        shown: list[list[Reading | None]] = [[] for _ in by_entity]  # one reading of each view; a model may have no view
        for place, (view, _) in enumerate(self._inputs.views):
            for readings, reading in zip(shown, self._readings(view, place, by_entity), strict=True):
                readings.append(reading)
        rows = iter(shown)
        return [next(rows) if prediction.entities else None for prediction in predictions]

    def compared(self, predictions: Sequence[PredictionRecord], seen: Sequence[Seen]) -> list[Replayed]:
        """Recomputes predictions of this version from what they saw."""
        return [self.compare(prediction, readings) for prediction, readings in zip(predictions, seen, strict=True)]

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

    def compare(self, prediction: PredictionRecord, readings: Seen) -> Replayed:
        """Recomputes one prediction from the readings of the model's views, in their order. None: its inputs came as a tensor."""
        vector = logged = vector_of(prediction.inputs)
        contents, differences = self._inputs.unnamed(prediction.contents), []
        if readings is not None:
            views = [view for view, _ in self._inputs.views]
            served = [serve(view, reading, prediction.time) for view, reading in zip(views, readings, strict=True)]
            vector = vector_of(self._inputs.row(served, prediction.entities, contents))
            for i in np.flatnonzero(vector.view(np.uint32) != logged.view(np.uint32)):
                if not (np.isnan(vector[i]) and np.isnan(logged[i])):
                    differences.append(ReplayDifference(self._inputs.plan[i].name, prediction.inputs[i], float(vector[i])))
        found = self._engine.answer(vector, contents)
        if found.output != prediction.output:
            differences.append(ReplayDifference("output", prediction.output, found.output))
        for name in dict.fromkeys([*prediction.probabilities, *found.probabilities]):
            logged_one, again = prediction.probabilities.get(name), found.probabilities.get(name)
            if logged_one != again:
                differences.append(ReplayDifference(f"probability of {name}", logged_one, again))
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
