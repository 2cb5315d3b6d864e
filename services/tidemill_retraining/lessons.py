"""Results of predictions as lessons: each with the inputs that were logged with its prediction, by their names."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow.compute as pc

from tidemill.declarations.models import class_name
from tidemill.errors import NoSuchVersion
from tidemill.kafka.topics import offset_ranges
from tidemill.models.artifact import Manifest, stored_manifest
from tidemill.models.incremental import Named, NamedColumn, columns_of, named
from tidemill.models.learned import Lesson, key_of
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.records import ResultRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import predictions_topic

_WAIT_SECONDS = 0.5
_COLUMNS = ["id", "version", "inputs"]


class ReadResult(NamedTuple):
    """A result, and its offset."""

    offset: int
    record: ResultRecord


class Lessons:
    """Of one model. `trained`: the version whose line learns; `until_ms`: outcomes that were known by then were in its training. Methods raise KafkaUnavailable,
    OfflineUnavailable, ArtifactError."""

    def __init__(self, kafka: KafkaSettings, project: str, store: OfflineStore, trained: Manifest, until_ms: int) -> None:
        self._kafka, self._project, self._store, self._trained, self._until = kafka, project, store, trained, until_ms
        self._columns: dict[str, tuple[NamedColumn, ...]] = {}

    def concern(self, record: ResultRecord) -> bool:
        """Whether a result is an outcome that the line has to learn."""
        return record.model == self._trained.model and record.outcome is not None and record.known > self._until

    async def of(self, results: Sequence[ReadResult]) -> list[Lesson]:
        """The lessons of results that concern it, in their order."""
        rows = await self._rows([result.record for result in results]) if results else {}
        return [
            Lesson(
                offset,
                record.seq,
                key_of(record.subject, record.known),
                record.known,
                rows.get(record.prediction),
                self._label(record.outcome),
            )
            for offset, record in results
        ]

    async def _rows(self, records: Sequence[ResultRecord]) -> dict[str, Named]:
        """The inputs of predictions by id. One that the offline store has not yet is waited for, until the store has read all that was logged by now."""
        found = await asyncio.to_thread(self._stored, records)
        if len(found) == len({record.prediction for record in records}):
            return found
        ends = {place: known.end for place, known in (await offset_ranges(self._kafka, predictions_topic(self._project))).items()}
        while True:
            snapshot = await asyncio.to_thread(self._store.find, "predictions")
            whole = snapshot is not None and all(snapshot.positions.get(place, 0) >= end for place, end in ends.items())
            found = await asyncio.to_thread(self._stored, records, snapshot)
            if whole or len(found) == len({record.prediction for record in records}):
                return found
            await asyncio.sleep(_WAIT_SECONDS)

    def _stored(self, records: Sequence[ResultRecord], snapshot: Snapshot | None = None) -> dict[str, Named]:
        snapshot = snapshot or self._store.find("predictions")
        if snapshot is None:
            return {}
        times = [record.time for record in records]
        asked = (pc.field("model") == self._trained.model) & (pc.field("time") >= min(times)) & (pc.field("time") <= max(times))
        rows = snapshot.scan(_COLUMNS, asked, among=("id", {record.prediction for record in records}))
        found: dict[str, Named] = {}
        for name, version, inputs in zip(*(rows[column].to_pylist() for column in _COLUMNS), strict=True):
            if name not in found and (columns := self._columns_of(version)):  # the first of an id counts
                found[name] = named(columns, inputs)
        return found

    def _columns_of(self, version: str) -> tuple[NamedColumn, ...]:
        """The inputs of the version that answered: each version numbers its texts anew. None of one that is stored no more."""
        if version not in self._columns:
            try:
                inputs = stored_manifest(self._store.url, self._trained.model, version)[0].inputs
            except NoSuchVersion:
                inputs = []
            self._columns[version] = columns_of(inputs)
        return self._columns[version]

    def _label(self, outcome: float | str | None) -> float | None:
        if outcome is None:
            return None
        if self._trained.output == "probabilities":
            names = self._trained.class_names
            return float(names.index(class_name(outcome))) if class_name(outcome) in names else None
        if isinstance(outcome, str) or math.isnan(outcome):
            return None
        return float(outcome > 0) if self._trained.output == "probability" else outcome
