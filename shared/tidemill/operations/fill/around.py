"""What a plan needs to know beside the catalogue and the project: what was routed, what the archive has, what a version cannot be given."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pyarrow.compute as pc
from aiokafka import TopicPartition

from tidemill.archive.columns import event_folder
from tidemill.archive.reading import beginnings, lacking, loads, unfinished
from tidemill.archive.retention import ArchiveSettings
from tidemill.catalogue.definitions import ViewVersion
from tidemill.catalogue.plan import Surroundings
from tidemill.declarations import Event, FeatureView
from tidemill.declarations.project import Project
from tidemill.kafka.topics import committed, offset_ranges
from tidemill.names import version_name
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore, Snapshot, counter_name
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group
from tidemill.streams.view_logs import existing_logs


class Survey(NamedTuple):
    """What a version is filled with. `archived`, `live`: events that there are now; `missing`: its features of fields that earlier events
    do not have; `lost`: events of its topic that expired before they were archived; `since_ms`: its windows do not cover what was routed
    before (None: all); `unfinished`: archived events of files that are not loaded to their end, which it is filled without."""

    archived: int
    live: int
    missing: tuple[str, ...] = ()
    lost: int = 0
    since_ms: int | None = None
    unfinished: int = 0


def archive_of(store: OfflineStore, event: str) -> Snapshot | None:
    """The newest version of the archive of an event; None when nothing of it is archived. Raises OfflineUnavailable."""
    return store.find(event_folder(event))


async def surroundings(project: Project, store: OfflineStore, kafka: KafkaSettings) -> Surroundings:
    """What there is now. Raises KafkaUnavailable, OfflineUnavailable."""
    done = await committed(kafka, ingestion_group(project.name))
    routed = {event.name for event in project.events.values() if any(map(done.get, _targets(event)))}
    gaps, begun, loaded = dict[str, set[str]](), dict[str, dict[str, int | None]](), dict[str, set[str]]()
    for event in project.events.values():
        snapshot = await asyncio.to_thread(archive_of, store, event.name)
        if snapshot is not None:
            gaps[event.name] = await asyncio.to_thread(lacking, snapshot, event)
            begun[event.name] = await asyncio.to_thread(beginnings, snapshot, event)
            loaded[event.name] = await asyncio.to_thread(loads, snapshot)
            if snapshot.rows or any(map(snapshot.counter, map(_counter, _targets(event)))):
                routed.add(event.name)
    logs = await existing_logs(kafka, project)
    for view in project.views.values():
        if logs.get(view.log):
            logs[view.log] = await asyncio.to_thread(_has_fields, store, view)
    return Surroundings(routed, logs, gaps, begun, loaded)


def _targets(event: Event) -> list[TopicPartition]:
    return [TopicPartition(event.topic, partition) for partition in range(event.partitions)]


def _has_fields(store: OfflineStore, view: FeatureView) -> bool:
    """Whether the records of a view's log have all fields that the view folds, as far as their mirror tells. They lack those that the view
    had not yet when they were written."""
    snapshot = store.find(view_folder(view.log))
    if snapshot is None or not snapshot.rows:
        return True
    usable, columns = pc.field("time").is_valid(), {name: f"v_{name}" for name in view.value_fields}
    if not set(columns.values()) <= set(snapshot.columns):
        return False
    needed = [pc.field(column) for name, column in columns.items() if not view.source.nullable(name)]
    return not any(snapshot.any(usable & column.is_null()) for column in needed)


async def survey(
    project: Project, version: ViewVersion, store: OfflineStore, kafka: KafkaSettings, keeping: ArchiveSettings, now_ms: int
) -> Survey:
    """What a version would be filled with now. `project`: that of the plan's first record; `keeping`: how long events are archived.

    Raises KafkaUnavailable, OfflineUnavailable.
    """
    view = project.views[version_name(version.view.name, version.version)]
    snapshot = await asyncio.to_thread(archive_of, store, view.source.name)
    live = lost = 0
    for target, held in (await offset_ranges(kafka, view.source.topic)).items():
        archived = 0 if snapshot is None else snapshot.counter(_counter(target))
        live += max(held.end - max(archived, held.begin), 0)
        lost += max(held.begin - archived, 0)
    parts = 0 if snapshot is None else sum((await asyncio.to_thread(unfinished, snapshot)).values())
    rows = 0 if snapshot is None else snapshot.rows - parts
    missing = tuple(feature.name for feature in view.served if view.since_ms(feature))
    since_ms = now_ms if lost else keeping.kept_since_ms(now_ms) or None
    return Survey(rows, live, missing, lost, since_ms, parts)


def _counter(target: TopicPartition) -> str:
    return counter_name(target.topic, target.partition)
