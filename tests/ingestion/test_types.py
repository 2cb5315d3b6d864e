"""A topic with ten thousand types of events, from Kafka and HTTP to logs and archive: each event once where it belongs, the audit agrees."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import TopicPartition
from tests.beside import beside

from tidemill import Event, FeatureView, Type, count, sum
from tidemill.archive.retention import ArchiveSettings
from tidemill.archive.writer import ArchiveWriter
from tidemill.declarations.project import Project
from tidemill.kafka.client import started_producer
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.reader import Reader
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.kafka.waves import send_wave
from tidemill.offline.mirror import Flush
from tidemill.offline.positions import positions
from tidemill.offline.store import OfflineStore
from tidemill.proof.archive_audit import audit_archive
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs, view_topic
from tidemill_ingestion.app import create_app
from tidemill_ingestion.consumer import EventConsumer
from tidemill_ingestion.http_api import EventsEndpoint
from tidemill_ingestion.publisher import Publisher

pytestmark = pytest.mark.integration
T0 = 1_700_000_000_000
TYPES = 10_000


def shop(name: str, **place: Any) -> Project:
    """Two events of one topic with one partition."""
    fields = {"at": int, "shop": str, "amount": float}
    events = [
        Event(each, fields, time="at", topic=f"{name}.in", partitions=1, type=Type(f"com.shop.{each}", **place))
        for each in ("paid", "returned")
    ]
    views = {event.name: FeatureView(event.name, event, "shop", [count(), sum("amount")], windows=["1h"], partitions=1) for event in events}
    return Project(name, {event.name: event for event in events}, views)


@pytest.mark.parametrize("place", [{"field": ["meta", "type"]}, {"header": "event-type"}, {"header": "ce_type"}], ids=str)
async def test_from_both_doors_to_log_and_archive(kafka: str, topic_prefix: str, tmp_path: Path, place: dict[str, Any]) -> None:
    """What HTTP takes and what a Kafka client sends are one stream; the rest is counted."""
    project, settings = shop(topic_prefix, **place), KafkaSettings(bootstrap_servers=kafka)
    topic = project.events["paid"].topic
    await ensure_topics(settings, topic_specs(project))
    by_kafka = [f"com.shop.{'paid' if n % 100 == 0 else 'returned' if n % 100 == 1 else n}" for n in range(TYPES)]
    async with started_producer(settings) as producer:
        await send_wave(producer, {(topic, 0): [_record(place, kind, n) for n, kind in enumerate(by_kafka)]})
    await _post(settings, project, place)
    posted = 2 if "field" in place else 3
    end = (await offset_ranges(settings, topic))[TopicPartition(topic, 0)].end
    before = metrics.NO_EVENT.labels(topic, "type")._value.get()
    async with EventConsumer(settings, project) as routing, beside(routing.run()), asyncio.timeout(180):
        while routing.positions.get(TopicPartition(topic, 0)) != end:
            await asyncio.sleep(0.05)
    assert metrics.NO_EVENT.labels(topic, "type")._value.get() - before == TYPES - 200
    for name in ("paid", "returned"):
        log = await _read(settings, view_topic(project.name, project.views[name].log))
        expected = [float(n) for n, kind in enumerate(by_kafka) if kind == f"com.shop.{name}"] + [0.5] * posted
        assert Counter(json.loads(record.value)["values"]["amount"] for record in log) == Counter(expected)
    assert await _archived(project, settings, tmp_path, end) == dict.fromkeys(project.events, 100 + posted)


def _record(place: dict[str, Any], kind: str, amount: float) -> tuple[None, bytes, list[tuple[str, bytes]]]:
    data = {"at": T0, "shop": "north", "amount": amount} | ({"meta": {"type": kind}} if "field" in place else {})
    return None, json.dumps(data).encode(), [] if "field" in place else [(place["header"], kind.encode())]


async def _post(settings: KafkaSettings, project: Project, place: dict[str, Any]) -> None:
    """Events by the name and by the type; one whose data are of another type is refused."""
    publisher, board = Publisher(settings), HealthBoard("kafka", "routing")
    board.up("kafka")
    await publisher.start()
    try:
        app = create_app(board, EventsEndpoint(project, publisher, board))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingestion") as http:
            for kind in ("paid", "returned"):
                data = json.loads(_record(place, f"com.shop.{kind}", 0.5)[1])
                for named in (kind, f"com.shop.{kind}"):
                    answer = await http.post("/events", json={"type": named, "data": data})
                    assert answer.status_code == 200, answer.text
            data = json.loads(_record({"field": 1}, "com.shop.paid", 0.5)[1])
            answer = await http.post("/events", json={"type": "returned", "data": data})
            if "field" in place:
                assert answer.json()["results"][0]["detail"] == "meta.type is 'com.shop.paid', of 'returned' it is 'com.shop.returned'"
                return
            assert answer.status_code == 200
            await http.post("/events", json={"type": "paid", "data": data})
    finally:
        await publisher.close()


async def _archived(project: Project, settings: KafkaSettings, folder: Path, end: int) -> dict[str, int]:
    """Archives all, lets the audit judge, and returns how many events each table has."""
    store = OfflineStore(folder)
    writers = [
        ArchiveWriter(store, project, event, settings, HealthBoard(), Flush(0.05), ArchiveSettings(days=None))
        for event in project.events.values()
    ]
    async with beside(writers[0].run()), beside(writers[1].run()), asyncio.timeout(180):
        while positions(writers) != {project.events["paid"].topic: {0: end}}:
            await asyncio.sleep(0.05)
    report = await audit_archive(project, store, settings)
    assert report.examples == []
    rows = {name: store.snapshot(f"events/{name}").rows for name in project.events}
    assert report.checked == rows["paid"] + rows["returned"]
    return rows


async def _read(settings: KafkaSettings, topic: str) -> list[Any]:
    async with Reader(settings, {TopicPartition(topic, 0): 0}) as reader:
        return [record async for fetched in read_to_end(reader) for records in fetched.values() for record in records]
