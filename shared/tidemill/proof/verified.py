"""Compares what a partition serves, and what predictions logged of it, with SQL over the archive: exactly, and under live traffic.

One command reads some entities with their fence. The fence says which events they must have seen; the archive and the view's rows are read
once both have them. So a difference is one, and not a matter of time. What cannot be compared now is passed over, and the report says why.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import event_folder
from tidemill.archive.erasure import erased_positions
from tidemill.clock import now_ms
from tidemill.declarations import Event, FeatureView
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError, CorruptState
from tidemill.kernel.fences import Fence
from tidemill.kernel.keys import asked_key, partition_of
from tidemill.kernel.served import serve
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import stored_artifact
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore, Snapshot, counter_name
from tidemill.offline.tables import entities_of_row, stamp_of_row
from tidemill.online.writer import OnlineWriter
from tidemill.proof.book import Breathe, between, waited_for
from tidemill.proof.newest_rows import WHOLE, Cut, by_cut, cuts, decided
from tidemill.proof.past import FOLLOWING_MS
from tidemill.proof.timed_rows import TimedPartition
from tidemill.redis.protocol import RedisClient
from tidemill.timestamps import rfc3339
from tidemill.verify.checks import LoggedInputs, logged_values
from tidemill.verify.compare import Compared, Told, compare
from tidemill.verify.rows_of import rows_of
from tidemill.verify.seen import ROW_COLUMNS, Absent, Reached, Seen, seen_events
from tidemill.verify.sql import BY_KNOWN, AskedMoment, SqlView, Value

_NEAR = 1_000  # records among which entities and predictions are drawn


class SampleSize(NamedTuple):
    """How much is compared at once: entities, logged predictions, and about how many rows of all of these entities together."""

    entities: int = 4
    predictions: int = 4
    rows: int = 50_000


@dataclass
class Verified:
    """What was compared: values of `entities`. `left_out`: entities and predictions that could not be, by reason; `differing`: the entities
    with a value that differs; `strange`: in words, events without a record, and records without an event."""

    compared: Compared
    entities: set[str] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    @property
    def checked(self) -> int:
        """How many values were compared."""
        return self.compared.values

    @property
    def mismatched(self) -> int:
        """How many of them differ."""
        return self.compared.differ

    @property
    def examples(self) -> list[str]:
        """The first differences in words, and what is strange about their events."""
        found = [f"{one.what}: {one.feature} is {one.told}, by SQL {one.sql}" for one in self.compared.examples]
        return [*found, *self.strange]


class Logged(NamedTuple):
    """What a prediction logged of a view: at which moment, up to which offset of the log, and the inputs by feature."""

    id: str
    entity: str
    at_ms: int
    next: int
    values: dict[str, tuple[None, float | str | None]]


class _Asked(NamedTuple):
    entities: list[str]
    logged: list[Logged]


class ViewVerify:
    """Verifies partitions of one view. `begins`: the offsets from which ingestion routes to its log (see `Definitions.begins`);
    `changed_ms`: when the catalogue was changed last, since earlier predictions may be by another declaration of the view (0: never)."""

    def __init__(
        self,
        project: Project,
        view: FeatureView,
        store: OfflineStore,
        link: RedisClient,
        begins: Mapping[int, int],
        wait_seconds: float,
        breathe: Breathe = lambda: None,
        changed_ms: int = 0,
    ) -> None:
        self.view, self._begins = view, begins
        self._judged_from_ms = changed_ms and changed_ms + FOLLOWING_MS
        self._store, self._wait_seconds, self._breathe = store, wait_seconds, breathe
        self._online, self._kernel = OnlineWriter(link, project.name), ViewKernel(view)
        self._inputs = lru_cache(64)(self._read_inputs)
        self._times: dict[int, TimedPartition] = {}

    async def look(
        self, partition: int, sample: SampleSize, draw: random.Random, also: Collection[str] = (), kept_since_ms: int = 0
    ) -> Verified:
        """Compares the entities in `also`, and others that `draw` chooses from those folded and asked for lately, or long ago.

        A difference counts when it is found twice. `kept_since_ms`: events known earlier may be deleted. Raises StoreUnavailable,
        StoreError, OfflineUnavailable, TornTable.
        """
        asked = await asyncio.to_thread(self._draw, partition, sample, draw, also)
        found = await self._once(partition, asked, sample, draw, kept_since_ms)
        return await self._once(partition, asked, sample, draw, kept_since_ms) if found.compared.differ else found

    async def _once(self, partition: int, asked: _Asked, sample: SampleSize, draw: random.Random, kept_since_ms: int) -> Verified:
        report = Verified(Compared(f"{self.view.name}[{partition}]"))
        if asked.entities:
            keys = [entity.encode() for entity in asked.entities]
            stored, values = await self._online.load(self.view.log, partition, keys)
            at_ms, fence = now_ms(), _fence(stored)
            if reason := self._unready(fence):
                report.left_out[reason] += len(asked.entities)
            else:
                assert fence is not None
                online = _Online(self.view, self._kernel, values, at_ms, fence)
                await asyncio.to_thread(self._compare, partition, online, asked, sample, draw, kept_since_ms, report)
        return report

    def _unready(self, fence: Fence | None) -> str:
        """Why values at a fence are not served; empty: they are."""
        if fence is None or fence.builder or fence.next < fence.until:
            return "rebuilding"
        return "" if fence.definition == self._kernel.definition else "definition"

    def _draw(self, partition: int, sample: SampleSize, draw: random.Random, also: Collection[str]) -> _Asked:
        snapshot = self._store.find(view_folder(self.view.log))
        end = 0 if snapshot is None else snapshot.positions.get(partition, 0)
        if snapshot is None or not end:
            return _Asked([], [])
        begin = max(end - _NEAR, 0) if draw.random() < 0.5 else draw.randrange(end)
        rows = snapshot.scan(["key"], between(partition, begin, begin + _NEAR) & pc.field("time").is_valid())
        keys = sorted(set(rows["key"].to_pylist()))
        logged = list(self._logged(partition, sample.predictions, draw))
        drawn = draw.sample(keys, min(sample.entities, len(keys)))
        return _Asked(list(dict.fromkeys([*also, *(one.entity for one in logged), *drawn])), logged)

    def _logged(self, partition: int, most: int, draw: random.Random) -> Iterator[Logged]:
        """Some predictions among the newest of a partition of their log, that saw this partition of the view."""
        snapshot = self._store.find("predictions")
        if snapshot is None or not most:
            return
        log, end = draw.choice(list(snapshot.positions.items()))
        where = between(log, max(end - _NEAR, 0), end) & pc.field("time").is_valid() & (pc.field("served") >= self._judged_from_ms)
        rows = snapshot.scan(["offset", "partition", "id", "model", "version", "time", "inputs", "entities", "stamp"], where)
        for place in draw.sample(range(len(rows)), len(rows)):
            (row,) = rows.slice(place, 1).to_pylist()
            entities = entities_of_row(row["entities"])
            key = asked_key([entities.get(name) for name in self.view.key.names])
            ends = [seen.next for seen in stamp_of_row(row["stamp"]) if (seen.view, seen.partition) == (self.view.log, partition)]
            names = self._inputs(row["model"], row["version"])
            if not ends or len(names) != len(row["inputs"]) or key is None or not self._lives(key, entities, partition):
                continue
            values = logged_values(self.view, names, row["inputs"])
            yield Logged(row["id"], key.decode(), row["time"], ends[0], values)
            most -= 1
            if not most:
                return

    def _lives(self, key: bytes, entities: Mapping[str, Any], partition: int) -> bool:
        kinds = [self.view.source.base_type(name) for name in self.view.key.fields]
        typed = all(type(entities[name]) is kind for name, kind in zip(self.view.key.names, kinds, strict=True))
        return typed and partition_of(key, self.view.partitions) == partition

    def _read_inputs(self, model: str, version: str) -> LoggedInputs:
        """The inputs of a version; none when it is gone."""
        try:
            return {item.name: item.categories for item in stored_artifact(self._store.url, model, version).manifest.inputs}
        except ArtifactError:
            return {}

    def _compare(
        self, partition: int, online: _Online, asked: _Asked, sample: SampleSize, draw: random.Random, kept_since_ms: int, report: Verified
    ) -> None:
        reached = Reached(online.fence.next, online.fence.sources, self._begins, online.fence.since_ms)
        stores = waited_for(lambda: self._stores(partition, reached), self._wait_seconds, self._breathe)
        if stores is None:
            report.left_out["lags"] += len(asked.entities)
            return
        log, archive = stores
        below = between(partition, 0, reached.next)
        counted = log.scan(["offset", "key", "known"], below, among=("key", asked.entities), order=())
        held = cuts(self.view, self._timed(partition, log, reached.next, counted), asked.entities, sample.rows)
        report.left_out["large"] += sum(cut != WHOLE for cut in held.values())
        source, key, rows, events = self.view.source, self.view.key.fields, list[pa.Table](), list[pa.Table]()
        for known_ms, entities in by_cut(held).items():
            where = below & (pc.field("known") >= known_ms) if known_ms else below
            rows.append(log.scan(ROW_COLUMNS, where, among=("key", entities), order=("offset",)))
            events.append(rows_of(archive, source, key, entities, self.view.read_fields, self._breathe, known_ms))
        absent = Absent(kept_since_ms, erased_positions(self._store, source))
        log_rows = self._timed(partition, log, reached.next, pa.concat_tables(rows).sort_by("offset"))
        seen = seen_events(self.view, pa.concat_tables(events), log_rows, reached, absent)
        for entity in held.keys() & seen.gone.keys():
            report.left_out[seen.gone[entity]] += 1
        there = {entity: cut for entity, cut in held.items() if entity not in seen.gone}
        self._judge(seen, [one for one in self._told(online, there, asked.logged, log_rows, draw, report) if one.values], report)

    def _timed(self, partition: int, log: Snapshot, end: int, rows: pa.Table) -> pa.Table:
        """Rows below `end` with the time of the log, if the view needs it."""
        if self.view.dedupe_ms is None:
            return rows
        return self._times.setdefault(partition, TimedPartition(self.view, partition)).timed(log, end, rows, self._breathe)

    def _told(
        self, online: _Online, entities: Mapping[str, Cut], logged: Sequence[Logged], rows: pa.Table, draw: random.Random, report: Verified
    ) -> Iterator[Told]:
        """What is served of the entities now: for this moment, and for those of their newest event and of any; and what predictions logged."""
        for entity, cut in entities.items():
            times = rows.filter(pc.field("key") == entity)["time"].drop_null().to_pylist()
            for at_ms in dict.fromkeys([online.at_ms, *([max(times), draw.choice(times)] if times else [])]):
                try:
                    values = decided(self.view, online.served(entity, at_ms), at_ms, cut)
                except CorruptState:
                    report.left_out["damaged"] += 1
                    continue
                asked = [AskedMoment(entity, at_ms, online.fence.next)]
                yield Told(f"{self.view.name} of {entity} at {rfc3339(at_ms)}, served", asked, values)
        for one in logged:
            if one.entity not in entities or one.next > online.fence.next:
                report.left_out["lags"] += one.entity in entities
                continue
            what = f"{self.view.name} of {one.entity} at {rfc3339(one.at_ms)}, logged by prediction {one.id}"
            inputs = decided(self.view, one.values, one.at_ms, entities[one.entity])
            yield Told(what, [AskedMoment(one.entity, one.at_ms, one.next)], inputs, rounded=True, may_lack=True)

    def _judge(self, seen: Seen, told: Sequence[Told], report: Verified) -> None:
        sql = SqlView(self.view, seen.events, seen.echoes, threads=1)
        try:
            report.compared = compare(report.compared.what, sql, told, shifts_ms=(BY_KNOWN,))
        finally:
            sql.close()
        report.entities = {one.asked[0].entity for one in told}
        found = {example.what for example in report.compared.examples}
        report.differing = list(dict.fromkeys(one.asked[0].entity for one in told if one.what in found))
        report.strange = seen.strange if found else []

    def _stores(self, partition: int, reached: Reached) -> tuple[Snapshot, Snapshot] | None:
        """The view's rows and the archive, when both have what was seen; else None."""
        log = self._store.find(view_folder(self.view.log))
        if log is None or log.positions.get(partition, 0) < reached.next:
            return None
        archive = archive_reaching(self._store, self.view.source, reached.ends)
        return None if archive is None else (log, archive)


def archive_reaching(store: OfflineStore, event: Event, ends: Mapping[int, int]) -> Snapshot | None:
    """The archive of an event, when it has all below these offsets of its topic; else None. Raises OfflineUnavailable, TornTable."""
    archive = store.find(event_folder(event.name))
    if archive is None or any(archive.counter(counter_name(event.topic, partition)) < end for partition, end in ends.items()):
        return None
    return archive


class _Online(NamedTuple):
    """What the online store holds of some entities, at its fence. `at_ms`: when it was read."""

    view: FeatureView
    kernel: ViewKernel
    values: Mapping[bytes, bytes]
    at_ms: int
    fence: Fence

    def served(self, entity: str, time_ms: int) -> dict[str, tuple[str, Value | None]]:
        """State and value of each feature, as feature serving answers. Raises CorruptState."""
        value = self.values.get(entity.encode())
        found = serve(self.view, None if value is None else self.kernel.read(value, time_ms, self.fence.since_ms), time_ms)
        shown = [None if isinstance(one := found.value(i), float) and math.isnan(one) else one for i in range(len(self.view.served))]
        return {feature.name: (state, one) for feature, state, one in zip(self.view.served, found.statuses, shown, strict=True)}


def _fence(stored: bytes | None) -> Fence | None:
    """A stored fence; None: there is none, or one that cannot be read, which the audit tells."""
    try:
        return None if stored is None else Fence.decode(stored)
    except msgspec.DecodeError:
        return None
