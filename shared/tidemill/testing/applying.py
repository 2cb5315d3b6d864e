"""The twin of `tidemill apply`: plan, fill, hand over, put in force. All of it is the product's own; only the servers are twins.

Needs the extra `lake`.
"""

from __future__ import annotations

from typing import NamedTuple

from tidemill.archive.columns import event_folder
from tidemill.archive.reading import beginnings, lacking
from tidemill.archive.view_records import RecordMaker, slices
from tidemill.catalogue.definitions import NOTHING, Definitions, project_of
from tidemill.catalogue.plan import Change, Surroundings, plan_of
from tidemill.declarations import Event, FeatureView
from tidemill.declarations.project import Project
from tidemill.names import version_name
from tidemill.offline.store import Snapshot, counter_name
from tidemill.streams.following import in_force
from tidemill.streams.topics import view_topic
from tidemill.testing.lake import MemoryLake
from tidemill.testing.log import MemoryKafka

Log = dict[int, list[tuple[bytes | None, bytes | None]]]
"""Key and value of each record, by partition."""


class PutInForce(NamedTuple):
    """What a change made: the catalogue, the project that it means, the changes one by one, and each new log by its topic."""

    definitions: Definitions
    project: Project
    changes: list[Change]
    logs: dict[str, Log]


def applied_first(project: Project) -> Definitions:
    """The catalogue of a project that was applied before the first event."""
    return plan_of(NOTHING, project, 0, Surroundings()).first


def applied(before: Definitions, project: Project, kafka: MemoryKafka, lake: MemoryLake, now_ms: int) -> PutInForce:
    """Puts a project in force at a moment. `lake`: has all events. Writes no record. Raises DeclarationError."""
    plan = plan_of(before, project, now_ms, _surroundings(before, project, kafka, lake))
    now, meanwhile, logs = plan.first, project_of(plan.first, project.name), dict[str, Log]()
    for found in plan.fills:
        view = meanwhile.views[version_name(found.view.name, found.version)]
        logs[view_topic(project.name, view.log)] = _filled(view, lake)
        kafka.create(view.source.topic, view.source.partitions)
        ends = {number: partition.end for number, partition in enumerate(kafka.partitions(view.source.topic))}
        now = now.handed_over(found.view.name, found.version, ends, now_ms)
    last = plan.finished(now, now_ms)
    return PutInForce(last, in_force(last, project).project, plan.changes, logs)


def _surroundings(before: Definitions, project: Project, kafka: MemoryKafka, lake: MemoryLake) -> Surroundings:
    archived = {event: found for event in project.events.values() if (found := lake.find(event_folder(event.name))) is not None}
    return Surroundings(
        {event.name for event, found in archived.items() if found.rows or _came(event, found)},
        {found.log: any(part.end for part in kafka.partitions(view_topic(project.name, found.log))) for found in before.views},
        {event.name: lacking(found, event) for event, found in archived.items()},
        {event.name: beginnings(found, event) for event, found in archived.items()},
    )


def _came(event: Event, archive: Snapshot) -> bool:
    return any(archive.counter(counter_name(event.topic, partition)) for partition in range(event.partitions))


def _filled(view: FeatureView, lake: MemoryLake) -> Log:
    """The records of a new log."""
    maker, log = RecordMaker(view), Log()
    for events in slices(lake, view, lake.snapshot(event_folder(view.source.name))):
        for partition, records in maker.made(events).records.items():
            log.setdefault(partition, []).extend((key, value) for key, value, _ in records)
    return log
