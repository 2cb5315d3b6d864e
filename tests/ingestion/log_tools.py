"""Writing and reading whole topics of a real Kafka, for the tests of ingestion."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations.project import Project
from tidemill.kafka.client import close_producer, consumer, producer
from tidemill.kafka.topics import committed, ensure_topics, offset_ranges
from tidemill.kafka.waves import Record, send_wave
from tidemill.routing.router import Router
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import dead_letters_topic, ingestion_group, topic_specs

Log = dict[TopicPartition, list[ConsumerRecord]]


async def make_topics(kafka: KafkaSettings, project: Project, **sizes: int) -> None:
    """Create a project's topics; `sizes` gives some of them another largest batch."""
    specs = topic_specs(project)
    for topic, size_bytes in sizes.items():
        specs[topic] = replace(specs[topic], config=specs[topic].config | {"max.message.bytes": str(size_bytes)})
    await ensure_topics(kafka, specs)


async def publish(kafka: KafkaSettings, project: Project, event: str, values: Iterable[object], headers: Sequence[Any] = ()) -> None:
    """Write events to their topic, in turn to every partition; a value is bytes or anything JSON."""
    declared = project.events[event]
    wave: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for number, value in enumerate(values):
        encoded = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
        wave[declared.topic, number % declared.partitions].append((None, encoded, list(headers)))
    made = producer(kafka)
    await made.start()
    try:
        await send_wave(made, wave)
    finally:
        await close_producer(made)


async def read_log(kafka: KafkaSettings, *topics: str) -> Log:
    """All records the topics hold now, by partition."""
    ranges = await offset_ranges(kafka, *topics)
    log: Log = {partition: [] for partition in ranges}
    missing = {partition: end for partition, (begin, end) in ranges.items() if begin < end}
    if not missing:
        return log
    reader = consumer(kafka, max_partition_fetch_bytes=8_000_000)
    await reader.start()
    try:
        reader.assign(list(missing))
        for partition in missing:
            reader.seek(partition, ranges[partition].begin)
        while missing:
            for partition, records in (await reader.getmany(timeout_ms=1000)).items():
                log[partition] += records
                if records[-1].offset + 1 >= missing.get(partition, 0):
                    missing.pop(partition, None)
    finally:
        await reader.stop()
    return log


async def wait_routed(kafka: KafkaSettings, project: Project, seconds: float = PATIENCE_SECONDS) -> None:
    """Return when ingestion has committed everything the application topics hold."""
    async with asyncio.timeout(seconds):
        while True:
            done = await committed(kafka, ingestion_group(project.name))
            ranges = await offset_ranges(kafka, *(event.topic for event in project.events.values()))
            if all(done.get(partition, begin) >= end for partition, (begin, end) in ranges.items()):
                return
            await asyncio.sleep(0.2)  # each question takes connections of its own


def our_topics(project: Project) -> list[str]:
    """The topics ingestion writes."""
    return [topic for topic in topic_specs(project) if topic not in {event.topic for event in project.events.values()}]


Told = dict[tuple[str, int, str, int], list[tuple[int, bytes | None, bytes]]]
"""Source offset, key and value of records in order, by topic, partition, source topic and source partition."""


async def told(kafka: KafkaSettings, project: Project) -> Told:
    """What our topics say, after skipping what was sent twice: a record whose source position is not above the last one of its source."""
    found: Told = defaultdict(list)
    for (topic, partition), records in (await read_log(kafka, *our_topics(project))).items():
        last: dict[tuple[str, int, Any], int] = {}
        for record in records:
            content = json.loads(record.value)
            source_topic, source_partition, offset = source_of(project, topic, content["source"])
            dedupe = (source_topic, source_partition, content.get("model"))
            if offset > last.get(dedupe, -1):
                last[dedupe] = offset
                found[topic, partition, source_topic, source_partition].append((offset, record.key, record.value))
    return dict(found)


async def expected(kafka: KafkaSettings, project: Project) -> Told:
    """What our topics should say: the application topics as they are, routed one by one."""
    router, should = Router(project), defaultdict(list)
    for event in project.events.values():
        for (topic, partition), records in (await read_log(kafka, event.topic)).items():
            for r in records:
                for out, number, key, value in router.route(topic, partition, r.offset, r.timestamp, r.key, r.value, r.headers):
                    should[out, number, topic, partition].append((r.offset, key, value))
    return dict(should)


def source_of(project: Project, topic: str, source: list[Any]) -> tuple[str, int, int]:
    """A record's source as topic, partition and offset; a view's records name no topic, since a view has one source."""
    if len(source) == 3:
        return source[0], source[1], source[2]
    return project.views[topic.split(".")[2]].source.topic, source[0], source[1]


async def dead_letters(kafka: KafkaSettings, project: Project) -> list[dict[str, Any]]:
    """All dead letters, in order."""
    log = await read_log(kafka, dead_letters_topic(project.name))
    return [json.loads(record.value) for records in log.values() for record in records]
