"""Which log the records of a view live in.

A view that is declared with another partition count has another log, new and empty. Until `tidemill repartition` has filled it nobody may route
to it, fold or mirror it: the view would begin anew from nothing, without a word. So whoever needs the topics of views gets them by `ensure_logs`.
It costs one look at the names of topics; only where a view has topics beside the declared one are their ends read, and the marks of repartition.
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
from tidemill.names import LogName, parse_log
from tidemill.records import LogRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.marks import read_marks
from tidemill.streams.topics import topic_specs, view_topic


def log_in_use(view: str, holding: AbstractSet[LogName], marks: Sequence[LogRecord]) -> LogName | None:
    """The log a view's records live in; None while it has none.

    `holding`: its logs that hold records; `marks`: what repartition told of it, in order. The last log that was filled is in use; before there
    was any, the one that holds records, unless repartition was about to fill it. Raises TopicMismatch when there are several of that kind.
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
    """View -> the log its records live in, of the views that have another topic than the declared one. Raises KafkaUnavailable, TopicMismatch."""
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


async def check_logs(settings: KafkaSettings, project: Project, views: Iterable[FeatureView]) -> None:
    """Raises UnfilledLog when the records of one of these views live in another log than the declared one; KafkaUnavailable, TopicMismatch."""
    used = await logs_in_use(settings, project)
    wrong = {view.name: (str(log), str(view.log)) for view in views if (log := used.get(view.name)) not in (None, view.log)}
    if wrong:
        raise UnfilledLog(wrong)


async def ensure_logs(settings: KafkaSettings, project: Project, topics: Iterable[str] | None = None) -> None:
    """`ensure_topics` of a project (all of them, or those named), once it is sure that its views' records live in the logs declared.

    Raises UnfilledLog (nothing was created), TopicMismatch, KafkaUnavailable.
    """
    specs = topic_specs(project)
    needed = specs if topics is None else {topic: specs[topic] for topic in topics}
    views = [view for view in project.views.values() if view_topic(project.name, view.log) in needed]
    if views:
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
    """`ensure_logs`, for as long as it takes: waits for Kafka, and for someone to mend a topic of another shape or to fill a log.

    `tell` hears what it waits for; `pulses`: of the workers that cannot begin before, for which this waiting is the sign of life. Raises the
    errors of `ensure_logs` that are not `waited_for`.
    """
    needed = None if topics is None else list(topics)
    await supervise(partial(ensure_logs, settings, project, needed), tell, pulses, waited_for)


async def _topics(settings: KafkaSettings) -> list[str]:
    async with admin(settings) as client:
        names: list[str] = await client.list_topics()
        return names


def _existing(project: Project, topics: Iterable[str]) -> Mapping[str, set[LogName]]:
    """View -> its logs that have a topic."""
    prefix, found = view_topic(project.name, LogName("")), dict[str, set[LogName]]()
    for topic in topics:
        log = LogName(topic.removeprefix(prefix))
        parsed = parse_log(log)
        if topic.startswith(prefix) and parsed is not None and parsed[0] in project.views:
            found.setdefault(parsed[0], set()).add(log)
    return found
