"""What a plan needs to know beside the catalogue and the project: what was routed, what the archive has, what a version cannot be given."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiokafka import TopicPartition

from tidemill.archive.columns import event_folder
from tidemill.archive.reading import has_value, lacking
from tidemill.archive.retention import ArchiveSettings
from tidemill.catalogue.definitions import ViewVersion
from tidemill.catalogue.plan import Surroundings
from tidemill.declarations import Event, FeatureView
from tidemill.declarations.project import Project
from tidemill.kafka.topics import committed, offset_ranges
from tidemill.names import version_name
from tidemill.offline.store import OfflineStore, Snapshot, counter_name
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group
from tidemill.streams.view_logs import existing_logs


class Survey(NamedTuple):
    """What a version is filled with. `archived`, `live`: events that there are now; `missing`: its fields that no archived event has; `lost`:
    events of its topic that expired before they were archived; `since_ms`: its windows do not cover what was routed before (None: all)."""

    archived: int
    live: int
    missing: tuple[str, ...] = ()
    lost: int = 0
    since_ms: int | None = None


def archive_of(store: OfflineStore, event: str) -> Snapshot | None:
    """The newest version of the archive of an event; None when nothing of it is archived. Raises OfflineUnavailable."""
    return store.find(event_folder(event))


async def surroundings(project: Project, store: OfflineStore, kafka: KafkaSettings) -> Surroundings:
    """What there is now. Raises KafkaUnavailable, OfflineUnavailable."""
    done = await committed(kafka, ingestion_group(project.name))
    routed = {target.topic for target, position in done.items() if position}
    found, gaps = set[str](), dict[str, set[str]]()
    for event in project.events.values():
        archived, gaps[event.name] = await asyncio.to_thread(_look, store, event)
        if archived or event.topic in routed:
            found.add(event.name)
    return Surroundings(found, await existing_logs(kafka, project), gaps)


def _look(store: OfflineStore, event: Event) -> tuple[bool, set[str]]:
    snapshot = archive_of(store, event.name)
    if snapshot is None:
        return False, set()
    return snapshot.rows > 0 or any(map(snapshot.counter, _counters(event))), lacking(snapshot, event)


def _counters(event: Event) -> list[str]:
    return [counter_name(event.topic, partition) for partition in range(event.partitions)]


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
    rows = 0 if snapshot is None else snapshot.rows
    missing = await asyncio.to_thread(_missing, view, snapshot) if snapshot is not None and rows else ()
    since_ms = now_ms if missing or lost else keeping.kept_since_ms(now_ms) or None
    return Survey(rows, live, missing, lost, since_ms)


def _counter(target: TopicPartition) -> str:
    return counter_name(target.topic, target.partition)


def _missing(view: FeatureView, snapshot: Snapshot) -> tuple[str, ...]:
    names = dict.fromkeys([view.key.field, *view.value_fields])
    return tuple(name for name in names if not has_value(snapshot, view.source, name))
