"""Which log holds the records of a view.

A view declared with another partition count has another log, new and empty. Before `tidemill repartition` has filled it no service may
route to it, fold it or mirror it: the view would silently begin again from nothing. So every service that needs the topics of views calls
`ensure_logs`. It reads the names of all topics; only if a view has other topics than the declared one does it read their ends, and the
marks of repartition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable, TidemillError, TopicMismatch, UnfilledLog
from tidemill.kafka.admin import admin
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.names import LogName, LogParts, parse_log
from tidemill.records import LogRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.marks import read_marks
from tidemill.streams.topics import topic_specs, view_topic


def log_in_use(view: str, holding: AbstractSet[LogName], marks: Sequence[LogRecord]) -> LogName | None:
    """The log that holds the records of a view; None while it has no records.

    `holding`: the logs of the view that hold records; `marks`: its marks of repartition, in order. The log filled last is in use. Without
    one it is the log that holds records and that repartition did not begin to fill. Raises TopicMismatch when several logs qualify.
    """
    filled = [mark.log for mark in marks if mark.filled]
    if filled:
        return filled[-1]
    found = sorted(holding - {mark.log for mark in marks})
    if len(found) > 1:
        raise TopicMismatch(
            f"view {view!r} has records in {' and in '.join(found)}, and nothing says which is in use",
            mend="delete the topic that is not",
        )
    return found[0] if found else None


async def logs_in_use(settings: KafkaSettings, project: Project) -> dict[str, LogName | None]:
    """View -> the log that holds its records, for views that also have other topics. Raises KafkaUnavailable, TopicMismatch."""
    existing = _existing(project, await _topics(settings))
    several = {view: logs for view, logs in existing.items() if logs - {project.views[view].log}}
    if not several:
        return {}
    held = await offset_ranges(settings, *(view_topic(project.name, log) for logs in several.values() for log in logs))
    filled = {tp.topic for tp, found in held.items() if found.end}
    marks = await read_marks(settings, project.name)
    return {
        view: log_in_use(
            view, {log for log in logs if view_topic(project.name, log) in filled}, [mark for mark in marks if mark.view == view]
        )
        for view, logs in several.items()
    }


async def existing_logs(settings: KafkaSettings, project: Project) -> dict[LogName, bool]:
    """The logs of a project's views that have a topic, and whether it holds records. Raises KafkaUnavailable."""
    logs = [log for found in _existing(project, await _topics(settings)).values() for log in found]
    held = await offset_ranges(settings, *(view_topic(project.name, log) for log in logs))
    filled = {target.topic for target, found in held.items() if found.end}
    return {log: view_topic(project.name, log) in filled for log in logs}


async def logs_with_topics(settings: KafkaSettings, project: str) -> dict[LogName, LogParts]:
    """All logs of a project that have a topic, whether anything declares them or not, and what their names say. Raises KafkaUnavailable."""
    return _logs(project, await _topics(settings))


async def check_logs(settings: KafkaSettings, project: Project, views: Iterable[FeatureView]) -> None:
    """Raises UnfilledLog when another log than the declared one holds a view's records; KafkaUnavailable, TopicMismatch."""
    used = await logs_in_use(settings, project)
    wrong = {view.name: (str(log), str(view.log)) for view in views if (log := used.get(view.name)) not in (None, view.log)}
    if wrong:
        raise UnfilledLog(wrong)


async def ensure_logs(settings: KafkaSettings, project: Project, topics: Iterable[str] | None = None) -> None:
    """`ensure_topics` for a project (all topics, or those named), after checking that the declared logs hold the records of its views. A
    project of the catalogue is not checked: the catalogue says which logs are in use.

    Raises UnfilledLog (nothing was created), TopicMismatch, KafkaUnavailable.
    """
    specs = topic_specs(project)
    needed = specs if topics is None else {topic: specs[topic] for topic in topics}
    views = [view for view in project.views.values() if view_topic(project.name, view.log) in needed]
    if views and not project.catalogue:
        await check_logs(settings, project, views)
    await ensure_topics(settings, needed)


async def need_topics(
    settings: KafkaSettings,
    project: Project,
    tell: Callable[[Exception], None],
    pulses: Iterable[Pulse],
    topics: Iterable[str] | None = None,
    waited_for: tuple[type[TidemillError], ...] = (KafkaUnavailable, TopicMismatch),
) -> None:
    """`ensure_logs` without a time limit: waits for Kafka, and until an operator has repaired a topic or filled a log.

    `tell` gets the reason for waiting. `pulses`: those of the workers that cannot start before; this loop beats them. Raises the errors of
    `ensure_logs` that are not `waited_for`.
    """
    needed = None if topics is None else list(topics)
    await supervise(partial(ensure_logs, settings, project, needed), tell, pulses, waited_for)


async def _topics(settings: KafkaSettings) -> list[str]:
    async with admin(settings) as client:
        names: list[str] = await client.list_topics()
        return names


def _logs(project: str, topics: Iterable[str]) -> dict[LogName, LogParts]:
    prefix = view_topic(project, LogName(""))
    logs = [LogName(topic.removeprefix(prefix)) for topic in topics if topic.startswith(prefix)]
    return {log: parsed for log in logs if (parsed := parse_log(log)) is not None}


def _existing(project: Project, topics: Iterable[str]) -> Mapping[str, set[LogName]]:
    """View -> its logs that have a topic."""
    found = dict[str, set[LogName]]()
    for log, parsed in _logs(project.name, topics).items():
        if parsed.view in project.views:
            found.setdefault(parsed.view, set()).add(log)
    return found
