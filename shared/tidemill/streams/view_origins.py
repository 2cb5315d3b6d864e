"""Since when events feed a view.

A view may be declared after its event has been routed for some time. Then its log has only later events, its windows are not covered yet,
and the log must say so. Each partition of such a log begins with a record of the moment (`since_record`), so any reader of the log or of
its rows knows it from the log alone. Ingestion writes this record before it routes the view's first event. A view declared from the
beginning has no such record.
"""

from __future__ import annotations

from aiokafka import TopicPartition

from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kafka.topics import OffsetRange, committed, offset_ranges
from tidemill.kafka.waves import send_wave
from tidemill.records import since_of, since_record
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group, view_topic

log = get_logger(__name__)

FETCH_SECONDS = 1.0


async def tell_origins(settings: KafkaSettings, project: Project, since_ms: int) -> list[str]:
    """Writes `since_ms` to the logs of the views that have no record yet and whose event was routed before; returns their names.

    Call it before routing any of their records. After an interrupted call, the next call writes the missing records. Raises
    KafkaUnavailable.
    """
    held = await offset_ranges(settings, *(view_topic(project.name, view.log) for view in project.views.values()))
    new = [view for view in project.views.values() if any(not found.end for found in _of(project, view, held).values())]
    if not new:
        return []
    routed = {partition.topic for partition, position in (await committed(settings, ingestion_group(project.name))).items() if position}
    told = []
    for view in new:
        partitions = _of(project, view, held)
        if view.source.topic in routed and await _only_told(settings, partitions):
            await _tell(settings, [partition for partition, found in partitions.items() if not found.end], since_ms)
            log.info("view is fed from now on", view=view.name, since=since_ms)
            told.append(view.name)
    return told


def _of(project: Project, view: FeatureView, held: dict[TopicPartition, OffsetRange]) -> dict[TopicPartition, OffsetRange]:
    topic = view_topic(project.name, view.log)
    return {partition: found for partition, found in held.items() if partition.topic == topic}


async def _only_told(settings: KafkaSettings, partitions: dict[TopicPartition, OffsetRange]) -> bool:
    """Whether all records of a log are records of `since_record`."""
    begun = {partition: found for partition, found in partitions.items() if found.end}
    if not begun:
        return True
    reader = DenseReader(settings, {partition: found.begin for partition, found in begun.items()}, {})
    try:
        await reader.start()
        while waiting := [partition for partition, found in begun.items() if reader.next[partition] < found.end]:
            fetched = await reader.fetch(FETCH_SECONDS, len(waiting))
            if any(since_of(record.key or b"") is None for records in fetched.values() for record in records):
                return False
    finally:
        await reader.stop()
    return True


async def _tell(settings: KafkaSettings, partitions: list[TopicPartition], since_ms: int) -> None:
    key, value = since_record(since_ms)
    writer = producer(settings)
    await writer.start()
    try:
        await send_wave(writer, {(topic, partition): [(key, value, [])] for topic, partition in partitions})
    finally:
        await close_producer(writer)
