"""From a prediction to the events that it saw, and from an event to the predictions that saw it.

The stamp of a prediction says up to which record it saw each log, and each record names the event that it was made from. So both ways are exact:
an event was seen if its record lies below the stamp's fence and belongs to the entity that was asked about; it counts for a feature if its time lies in
the feature's window at the request.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations import Event, FeatureView, Model
from tidemill.declarations.project import Project
from tidemill.kernel.keys import partition_of
from tidemill.models.artifact import stored_manifest
from tidemill.models.declared import as_declared
from tidemill.models.inputs import ModelInputs
from tidemill.names import parse_log
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import entities_of_row, stamp_of_row
from tidemill.records import PredictionRecord, StampEntry

_PREDICTIONS = ["id", "model", "version", "time", "entities", "stamp"]


class SeenEvent(NamedTuple):
    """An event as a prediction saw it. `partition`, `source`: where it stands on its topic; `offset`: of its record in the view's log;
    `features`: those for which its time counts at the request."""

    id: str | None
    time_ms: int
    known_ms: int
    partition: int
    source: int
    offset: int
    features: list[str]


class SeenLog(NamedTuple):
    """What a prediction saw of one view: the entity's events below the fence, oldest first."""

    view: str
    entity: str
    topic: str
    log: str
    partition: int
    below: int
    events: list[SeenEvent]


class SeeingPrediction(NamedTuple):
    """A prediction that saw an event. `features`: those for which the event's time counted."""

    id: str
    model: str
    version: str
    time_ms: int
    view: str
    features: list[str]


def events_of(project: Project, store: OfflineStore, prediction: PredictionRecord) -> list[SeenLog]:
    """What a prediction saw, one entry for each view whose entity was given. A prediction by tensor saw nothing of the store.

    Raises UnknownModel, ArtifactError, OfflineUnavailable.
    """
    if not prediction.entities:
        return []
    manifest, _ = stored_manifest(store.url, prediction.model, prediction.version)
    model, _ = as_declared(project, manifest)
    inputs = ModelInputs(model, manifest.categories)
    found = []
    for (view, _), key in zip(inputs.views, inputs.keys(prediction.entities), strict=True):
        entry = None if key is None else _stamped(prediction.stamp, view, key)
        if key is not None and entry is not None:
            found.append(_seen(store, view, key.decode(), entry, prediction.time, _names(model, view)))
    return found


def predictions_of(project: Project, store: OfflineStore, event: Event, event_id: str) -> list[SeeingPrediction]:
    """The logged predictions that saw an event, by the views of now, in order of time."""
    readers = [view for view in project.views.values() if view.source is event]
    records = {view.name: _records(store, view, pc.field("id") == event_id) for view in readers}
    models = {name: model for name, model in project.models.items() if any(records.get(view.name) for view in model.views)}
    if not models:
        return []
    table = store.predictions(_PREDICTIONS)
    table = table.filter(pc.is_in(table["model"], value_set=pa.array(list(models))))
    found = []
    keys = {name: ModelInputs(model, {}) for name, model in models.items()}
    for row in table.to_pylist():
        model, entities = models[row["model"]], entities_of_row(row["entities"])
        if not entities:
            continue
        stamp = stamp_of_row(row["stamp"])
        for view, key in zip(model.views, keys[row["model"]].keys(entities), strict=True):
            seen = [record for record in records.get(view.name, ()) if key is not None and _sees(stamp, key, record)]
            if seen:
                features = _counting(view, seen[0].time_ms, row["time"], _names(model, view))
                found.append(SeeingPrediction(row["id"], row["model"], row["version"], row["time"], view.name, features))
    return sorted(found, key=lambda one: (one.time_ms, one.id))


class _EventRecord(NamedTuple):
    """The record of an event in a view's log."""

    log: str
    key: str
    partition: int
    offset: int
    time_ms: int


def _records(store: OfflineStore, view: FeatureView, where: pc.Expression) -> list[_EventRecord]:
    snapshot = store.find(view_folder(view.log))
    if snapshot is None:
        return []
    rows = snapshot.scan(["key", "partition", "offset", "time"], where & pc.field("time").is_valid())
    return [_EventRecord(view.log, row["key"], row["partition"], row["offset"], row["time"]) for row in rows.to_pylist()]


def _sees(stamp: Iterable[StampEntry], key: bytes, record: _EventRecord) -> bool:
    if record.key.encode() != key:
        return False
    return any(entry.view == record.log and entry.partition == record.partition and entry.next > record.offset for entry in stamp)


def _stamped(stamp: Sequence[StampEntry], view: FeatureView, key: bytes) -> StampEntry | None:
    """The fence of a view that was seen for an entity."""
    for entry in stamp:
        parsed = parse_log(entry.view)
        if parsed and parsed.view == view.plain_name and entry.partition == partition_of(key, parsed.partitions):
            return entry
    return None


def _seen(store: OfflineStore, view: FeatureView, key: str, entry: StampEntry, time_ms: int, names: Sequence[str]) -> SeenLog:
    where = (pc.field("partition") == entry.partition) & (pc.field("offset") < entry.next) & pc.field("time").is_valid()
    columns = ["offset", "key", "time", "known", "id", "source_partition", "source_offset"]
    rows = store.snapshot(view_folder(entry.view)).scan(columns, where, among=("key", {key})).sort_by("offset")
    events = [
        SeenEvent(
            row["id"], row["time"], row["known"], row["source_partition"], row["source_offset"], row["offset"],
            _counting(view, row["time"], time_ms, names),
        )
        for row in rows.to_pylist()
    ]  # fmt: skip
    return SeenLog(view.name, key, view.source.topic, entry.view, entry.partition, entry.next, events)


def _counting(view: FeatureView, event_ms: int, time_ms: int, names: Sequence[str]) -> list[str]:
    """The features for which an event of this time counts at a request."""
    found = []
    for feature in view.served:
        first, last, _ = feature.window.at(time_ms, time_ms, 0)
        if feature.name in names and first <= feature.window.grid.index(event_ms) <= last:
            found.append(feature.name)
    return found


def _names(model: Model, view: FeatureView) -> list[str]:
    """The features of a view that a model takes."""
    chosen: dict[FeatureView, list[str]] = defaultdict(list)
    for selection in model.selections:
        chosen[selection.view] += selection.names
    return chosen[view]
