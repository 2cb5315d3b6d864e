"""Which log the records of a view live in.

A view that is declared with another partition count has another log, new and empty. Until `tidemill repartition` has filled it nobody may route
to it, fold or mirror it: the view would begin anew from nothing, without a word. So whoever needs the topics of views gets them by `ensure_logs`.
It costs one look at the names of topics; only where a view has topics beside the declared one are their ends read, and the marks of repartition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec
from aiokafka import TopicPartition

from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.errors import TopicMismatch, UnfilledLog
from tidemill.kafka.admin import admin
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.names import LogName, parse_log
from tidemill.records import LogRecord, decoder
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import logs_topic, topic_specs, view_topic

FETCH_SECONDS = 1.0
_decode = decoder(LogRecord).decode


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
    marks = await read_marks(settings, project)
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


async def read_marks(settings: KafkaSettings, project: Project) -> list[LogRecord]:
    """All that repartition told, in order."""
    partition = TopicPartition(logs_topic(project.name), 0)
    begin, end = (await offset_ranges(settings, partition.topic)).get(partition, (0, 0))
    if begin == end:
        return []
    reader, marks = DenseReader(settings, {partition: begin}, {}), list[LogRecord]()
    try:
        await reader.start()
        while reader.next[partition] < end:
            marks += [_mark(record.value) for records in (await reader.fetch(FETCH_SECONDS, 1000)).values() for record in records]
    finally:
        await reader.stop()
    return marks


def _mark(value: bytes | None) -> LogRecord:
    try:
        return _decode(value or b"")
    except msgspec.DecodeError as error:
        raise TopicMismatch(f"a record of the topic of logs cannot be read: {error}", mend="only tidemill repartition writes it") from None


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
