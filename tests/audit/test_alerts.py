"""Alerts of the audit: told once when a partition is found wrong and once when it is right, over restarts too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiokafka import TopicPartition
from tests.demo_state import NOW_MS, demo

from tidemill.kafka.client import close_producer, consumer, producer
from tidemill.proof.archive_audit import ArchiveReport
from tidemill.proof.partition_audit import AuditReport, Mismatch
from tidemill.records import AlertRecord, decoder, encode
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import alerts_topic
from tidemill_audit.alerts import Alerts, alert_of

WRONG = AuditReport(50, 2, [Mismatch("zones", 3, "north", 120, "count_1h is 5.0 online, 4.0 offline")])
FENCE = AuditReport(50, 1, [Mismatch("zones", 3, None, 120, "fence: proof is 1, the rows give 2")])
RIGHT = AuditReport(50)
PLACE = ("zones", 3)


def test_opened_once_and_closed_once() -> None:
    """Wrong, still wrong, right, still right: two alerts, each naming view and partition; the same outcome gives the same id."""
    opened = alert_of(PLACE, WRONG, None, NOW_MS)
    assert opened is not None
    assert (opened.state, opened.view, opened.subject, opened.test, opened.rows) == ("opened", "zones", "partition 3", "audit", 50)
    assert "north at offset 120: count_1h is 5.0 online" in opened.message
    assert opened == alert_of(PLACE, WRONG, None, NOW_MS)
    assert alert_of(PLACE, FENCE, opened, NOW_MS) is None
    closed = alert_of(PLACE, RIGHT, opened, NOW_MS + 1)
    assert closed is not None
    assert (closed.state, closed.source, closed.view, closed.partition) == ("closed", "audit", *PLACE)
    assert alert_of(PLACE, RIGHT, closed, NOW_MS + 2) is None
    again = alert_of(PLACE, WRONG, closed, NOW_MS + 3)
    assert again is not None
    assert again.id not in (opened.id, closed.id)
    assert alert_of(PLACE, RIGHT, None, NOW_MS) is None


def test_an_archive_is_told_by_its_table() -> None:
    """The table stands in the place of the view."""
    place = ("events/trips", 2)
    opened = alert_of(place, ArchiveReport(50, 1, 0, ["trips[2] at 7: the archive lacks the event"]), None, NOW_MS)
    assert opened is not None
    assert (opened.test, opened.view, opened.partition) == ("archive", *place)
    assert opened.message == (
        "events/trips[2]: 1 of 50 events compared are not what the topic says; first trips[2] at 7: the archive lacks the event"
    )
    closed = alert_of(place, ArchiveReport(50), opened, NOW_MS)
    assert closed is not None
    assert closed.message == "events/trips[2]: the archive is again what the topic says (50 compared)"


def test_a_fence_is_named() -> None:
    """What differs may be the fence alone."""
    alert = alert_of(PLACE, FENCE, None, NOW_MS)
    assert alert is not None
    assert "first the fence at offset 120: fence: proof is 1" in alert.message


class Told:
    """The alerts topic of a project."""

    def __init__(self, kafka: str, name: str) -> None:
        self.project = replace(demo(), name=name)
        self.settings = KafkaSettings(bootstrap_servers=kafka)
        self.topic = alerts_topic(name)

    async def until(self, count: int) -> list[AlertRecord]:
        """The first alerts, once there are so many."""
        reader, target = consumer(self.settings), TopicPartition(self.topic, 0)
        await reader.start()
        reader.assign([target])
        await reader.seek_to_beginning(target)
        found: list[AlertRecord] = []
        async with asyncio.timeout(180):
            while len(found) < count:
                for record in (await reader.getmany(timeout_ms=200)).get(target, []):
                    with contextlib.suppress(Exception):
                        found.append(decoder(AlertRecord).decode(record.value))
        await reader.stop()
        return found


@contextlib.asynccontextmanager
async def running(told: Told) -> AsyncIterator[tuple[Alerts, HealthBoard]]:
    """Alerts at work."""
    board = HealthBoard("kafka")
    alerts = Alerts(told.project, told.settings, board)
    task = asyncio.create_task(alerts.run())
    try:
        yield alerts, board
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.integration
async def test_over_restarts(kafka: str, topic_prefix: str) -> None:
    """A new process neither repeats what is open nor forgets it; records of others on the topic do not matter."""
    told = Told(kafka, topic_prefix)
    async with running(told) as (alerts, _):
        alerts.found(PLACE, WRONG)
        alerts.found(("drivers", 0), RIGHT)
        await told.until(1)
    async with producer(told.settings) as writer:
        for nonsense in (b"nonsense", b'{"id": "\xff"}', b"[" * 100_000):
            await writer.send_and_wait(told.topic, nonsense, partition=0)
        drift = AlertRecord("x", "m", "1", "performance", "auc", "opened", 0, 1, "z", 1.0, 1.0, 1.0, 1, "worse")
        await writer.send_and_wait(told.topic, encode(drift), partition=0)
        await close_producer(writer)
    async with running(told) as (alerts, board):
        alerts.found(PLACE, WRONG)
        async with asyncio.timeout(180):
            while not board.ready:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)
        assert board.ready
        alerts.found(PLACE, RIGHT)
        found = await told.until(3)
    assert [(alert.id == "x", alert.state) for alert in found] == [(False, "opened"), (True, "opened"), (False, "closed")]


@pytest.mark.integration
async def test_kafka_is_away(topic_prefix: str) -> None:
    """Without Kafka the board says so, with the address, and findings wait."""
    told = Told("127.0.0.1:1", topic_prefix)
    async with running(told) as (alerts, board):
        alerts.found(PLACE, WRONG)
        async with asyncio.timeout(180):
            while "127.0.0.1:1" not in str(board.missing.get("kafka", "")):
                await asyncio.sleep(0.1)
