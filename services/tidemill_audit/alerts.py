"""Alerts of the audit: one when a partition is first found wrong, one when it is right again; not one per round.

What is open follows from the alerts told so far, which are read from their topic, so a restart neither repeats nor forgets one.
"""

from __future__ import annotations

import asyncio
import hashlib

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tidemill.clock import now_ms
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.topics import ensure_topics
from tidemill.proof.partition_audit import AuditReport
from tidemill.records import AlertRecord, encode
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.alerts import read_alerts
from tidemill.streams.topics import alerts_topic, topic_specs

Place = tuple[str, int]
TEST = "audit"
RETRY_SECONDS = 1.0
KAFKA_SECONDS = 15.0


class Alerts:
    """Tells what `found` was told of. Reports on the board as "kafka"; while Kafka is away the newest findings wait."""

    def __init__(self, project: Project, kafka: KafkaSettings, board: HealthBoard) -> None:
        self._project, self._topic = project.name, alerts_topic(project.name)
        self._kafka, self._board = kafka, board
        self._spec = topic_specs(project)[self._topic]
        self._found: dict[Place, AuditReport] = {}
        self._news = asyncio.Event()
        self.pulse = Pulse("alerts")

    def found(self, place: Place, report: AuditReport) -> None:
        """Takes the outcome of comparing a partition."""
        self._found[place] = report
        self._news.set()

    async def run(self) -> None:
        """Tell until cancelled; whatever fails is reported and tried again."""
        while True:
            writer = producer(self._kafka)
            try:
                await ensure_topics(self._kafka, {self._topic: self._spec})
                await writer.start()
                async with asyncio.timeout(KAFKA_SECONDS):
                    told = await self._told()
                await self._follow(writer, told)
            except (KafkaError, TidemillError, TimeoutError) as error:
                self._board.down("kafka", f"Kafka at {self._kafka.bootstrap_servers}: {type(error).__name__} {error}".rstrip())
                self.pulse.beat()
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await close_producer(writer)

    async def _follow(self, writer: AIOKafkaProducer, told: dict[Place, AlertRecord]) -> None:
        self._board.up("kafka")
        while True:
            self.pulse.beat()
            self._news.clear()
            for place, report in list(self._found.items()):
                alert = alert_of(place, report, told.get(place), now_ms())
                if alert is None:
                    continue
                async with asyncio.timeout(KAFKA_SECONDS):
                    await writer.send_and_wait(self._topic, encode(alert), alert.view.encode(), partition=0)
                told[place] = alert
            try:
                await asyncio.wait_for(self._news.wait(), RETRY_SECONDS)
            except TimeoutError:
                continue

    async def _told(self) -> dict[Place, AlertRecord]:
        """The newest alert of the audit on each partition."""
        alerts = await read_alerts(self._kafka, self._project)
        return {place_of(alert): alert for alert in alerts if alert.test == TEST}


def place_of(alert: AlertRecord) -> Place:
    """The view and partition that an alert of the audit is about."""
    return alert.view, int(alert.subject.removeprefix("partition "))


def alert_of(place: Place, report: AuditReport, told: AlertRecord | None, time_ms: int) -> AlertRecord | None:
    """What to tell after a comparison, given what was told last: opened, closed, or nothing."""
    was_open = told is not None and told.state == "opened"
    if bool(report.mismatched) == was_open:
        return None
    (view, partition), state = place, "closed" if was_open else "opened"
    first = report.examples[0] if report.examples else None
    text = f"{view}[{partition}]: the online store is again what the log says ({report.checked} values compared)"
    if first is not None:
        text = (
            f"{view}[{partition}]: {report.mismatched} of {report.checked} values compared are not what the log says; first "
            f"{first.entity or 'the fence'} at offset {first.fence}: {first.what}"
        )
    identity = "|".join(
        [TEST, view, str(partition), state, told.id if told else "", repr(first and (first.entity, first.fence, first.what))]
    )
    return AlertRecord(
        id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        model="",
        version="",
        kind="data_quality",
        subject=f"partition {partition}",
        state="closed" if was_open else "opened",
        start=time_ms,
        end=time_ms,
        test=TEST,
        statistic=float(report.mismatched),
        threshold=0.0,
        effect=float(report.mismatched),
        rows=report.checked,
        message=text[:2000],
        view=view,
    )
