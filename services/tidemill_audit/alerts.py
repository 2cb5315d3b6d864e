"""Alerts of the audit: one when a partition first differs, one when it is right again; not one per round.

Which alerts are open follows from the alerts sent so far. They are read from their topic, so a restart neither repeats nor forgets one.
"""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial

from aiokafka import AIOKafkaProducer

from tidemill.clock import now_ms
from tidemill.declarations.project import Project
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.proof.archive_audit import ArchiveReport
from tidemill.proof.partition_audit import AuditReport
from tidemill.proof.verified import Verified
from tidemill.records import AlertRecord
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.alerts import append_alert, read_alerts
from tidemill.streams.topics import alerts_topic, topic_specs

Place = tuple[str, int]
"""A view, or the table of an event's archive or of a model's results, and a partition."""
Report = AuditReport | ArchiveReport | Verified
NEWS_SECONDS = 1.0  # between two signs of life while there is nothing to send


class Alerts:
    """Sends alerts about the reports that `found` gets. Shows on the board as "kafka"; while Kafka is away the newest reports wait."""

    def __init__(self, project: Project, kafka: KafkaSettings, board: HealthBoard) -> None:
        self._project, self._topic = project.name, alerts_topic(project.name)
        self._kafka, self._board = kafka, board
        self._spec = topic_specs(project)[self._topic]
        self._found: dict[tuple[str, str, int], Report] = {}
        self._news = asyncio.Event()
        self.pulse = Pulse("alerts")

    def found(self, place: Place, report: Report) -> None:
        """Takes the report on a partition."""
        self._found[_test(report), *place] = report
        self._news.set()

    async def run(self) -> None:
        """Send alerts until cancelled. A failure is shown on the board, and sending is tried again."""
        await supervise(self._tell, partial(self._board.down, "kafka"), [self.pulse])

    async def _tell(self) -> None:
        await ensure_topics(self._kafka, {self._topic: self._spec})
        async with started_producer(self._kafka) as writer:
            await self._follow(writer, await self._told())

    async def _follow(self, writer: AIOKafkaProducer, told: dict[tuple[str, str, int], AlertRecord]) -> None:
        self._board.up("kafka")
        while True:
            self.pulse.beat()
            self._news.clear()
            for about, report in list(self._found.items()):
                alert = alert_of(about[1:], report, told.get(about), now_ms())
                if alert is None:
                    continue
                await append_alert(writer, self._project, alert)
                told[about] = alert
            try:
                async with asyncio.timeout(NEWS_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _told(self) -> dict[tuple[str, str, int], AlertRecord]:
        """The newest alert of each test on each partition."""
        alerts = await read_alerts(self._kafka, self._project)
        return {
            (alert.test, alert.view, alert.partition): alert for alert in alerts if alert.source == "audit" and alert.partition is not None
        }


_RIGHT = {
    "audit": "the online store is again what the log says",
    "archive": "the archive is again what the topic says",
    "verify": "values are again what SQL makes of the archived events",
}
_WRONG = {
    "audit": "values compared are not what the log says",
    "archive": "events compared are not what the topic says",
    "verify": "values compared are not what SQL makes of the archived events",
}


def _test(report: Report) -> str:
    if isinstance(report, AuditReport):
        return "audit"
    return "archive" if isinstance(report, ArchiveReport) else "verify"


def _first(report: Report) -> str:
    """The first difference in words ("": there is none)."""
    if isinstance(report, AuditReport):
        return next((f"{found.entity or 'the fence'} at offset {found.fence}: {found.what}" for found in report.examples), "")
    return next(iter(report.examples), "")


def alert_of(place: Place, report: Report, told: AlertRecord | None, time_ms: int) -> AlertRecord | None:
    """The alert after a comparison, given the last alert on the partition: opened, closed, or none."""
    was_open = told is not None and told.state == "opened"
    if bool(report.mismatched) == was_open:
        return None
    (view, partition), state = place, "closed" if was_open else "opened"
    test, first = _test(report), _first(report)
    text = f"{view}[{partition}]: {_RIGHT[test]} ({report.checked} compared)"
    if report.mismatched:
        text = f"{view}[{partition}]: {report.mismatched} of {report.checked} {_WRONG[test]}; first {first}"
    identity = "|".join([test, view, str(partition), state, told.id if told else "", first])
    return AlertRecord(
        id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        model="",
        version="",
        kind="data_quality",
        subject=f"partition {partition}",
        state="closed" if was_open else "opened",
        start=time_ms,
        end=time_ms,
        test=test,
        statistic=float(report.mismatched),
        threshold=0.0,
        effect=float(report.mismatched),
        rows=report.checked,
        message=text[:2000],
        view=view,
        partition=partition,
        source="audit",
    )
