"""Which data a version was trained on: the state of the archive that was read, and the digest of the set that came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from tidemill.archive.columns import event_folder
from tidemill.declarations import Event
from tidemill.offline.store import OfflineStore, counter_name
from tidemill.training.dataset import TrainingSet

DATA = "data.json"
"""What a DataRecord is called beside a version."""


class ArchiveState(msgspec.Struct, frozen=True):
    """The archive of one event when it was read. `version`: of its Delta table (None: there was none); `positions`: the next offset of each
    partition of its topic."""

    version: int | None
    positions: dict[str, int] = {}


class DataRecord(msgspec.Struct, frozen=True):
    """The data of a run. `digest`: of the training set; two sets with one digest are equal to the last bit."""

    digest: str
    rows: int
    inputs: int
    archive: dict[str, ArchiveState]


def archive_state(store: OfflineStore, events: Iterable[Event]) -> dict[str, ArchiveState]:
    """The state of the archive, by event. Raises OfflineUnavailable, TornTable."""
    return {event.name: _state(store, event) for event in events}


def _state(store: OfflineStore, event: Event) -> ArchiveState:
    snapshot = store.find(event_folder(event.name))
    if snapshot is None:
        return ArchiveState(None)
    positions = {str(p): snapshot.counter(counter_name(event.topic, p)) for p in range(event.partitions)}
    return ArchiveState(snapshot.version, positions)


def set_digest(examples: TrainingSet) -> str:
    """The SHA-256 of a training set: subjects, times, labels with their texts, and the inputs with their names and texts."""
    found = hashlib.sha256(msgspec.json.encode([examples.subjects, examples.inputs, examples.texts]))
    for part in (examples.times_ms, examples.labels, examples.values):
        found.update(f"{part.dtype} {part.shape}".encode() + part.tobytes())
    return found.hexdigest()
