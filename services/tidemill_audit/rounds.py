"""The rounds: once in a period every partition of every view is compared, whole or by a sample, and a piece of each event's archive;
differences are reported."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from tidemill.archive.columns import event_folder
from tidemill.archive.retention import ArchiveSettings
from tidemill.clock import now_ms
from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable, OfflineUnavailable, StoreError, StoreUnavailable, TopicRecreated, TornTable
from tidemill.offline.store import OfflineStore
from tidemill.proof.archive_audit import ArchiveAudit
from tidemill.proof.counterexample import shown
from tidemill.proof.partition_audit import AuditReport, Mismatch, PartitionAudit
from tidemill.redis.protocol import RedisClient
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill_audit.alerts import Alerts, Place
from tidemill_audit.pace import Pace
from tidemill_audit.settings import PaceSettings

log = get_logger(__name__)

WAIT_SECONDS = 30.0  # for the offline writer to reach the online fence
SHOWN_ROWS = 20  # of a counter-example in a log message
RETRY_SECONDS = 5.0  # to the next partition while the offline store is away, so that its return is soon noticed
_TICK_SECONDS, _LEAST_SECONDS = 1.0, 0.01


class Rounds:
    """Compares round after round until cancelled. Shows on the board as "offline"."""

    def __init__(
        self,
        project: Project,
        store: OfflineStore,
        link: RedisClient,
        kafka: KafkaSettings,
        settings: PaceSettings,
        archive: ArchiveSettings,
        alerts: Alerts,
        board: HealthBoard,
    ) -> None:
        self._period_seconds, self._kept = settings.period_seconds, archive
        self._alerts, self._board = alerts, board
        self.pulse = Pulse("rounds")
        places = [(view, partition) for view in project.views.values() for partition in range(view.partitions)]
        self._pace = Pace(settings.cpu, self._period_seconds, len(places) + len(project.events))
        self._audits: dict[Place, PartitionAudit] = {
            (view.name, partition): PartitionAudit(project.name, view, partition, store, link, WAIT_SECONDS, self._breathe)
            for view, partition in places
        }
        self._archives = {event.name: ArchiveAudit(project, store, kafka, event) for event in project.events.values()}
        self._differing: dict[Place, list[str]] = {}

    def _breathe(self) -> None:
        self._board.up("offline")  # its rows up to the fence are being read
        self.pulse.beat()
        self._pace.rest()

    async def run(self) -> None:
        """Go round. A partition that cannot be compared now is skipped, and the board or a warning says why."""
        while True:
            began = time.monotonic()
            looks = [partial(self._look, place) for place in self._audits] + [
                partial(self._look_archive, event) for event in self._archives
            ]
            for number, look in enumerate(looks, 1):
                await look()
                slot_ends = began + number * self._period_seconds / len(looks)
                soon = time.monotonic() + RETRY_SECONDS if "offline" in self._board.missing else slot_ends
                await self._rest_until(min(soon, slot_ends))
            metrics.AUDIT_ROUNDS.inc()

    async def _rest_until(self, moment: float) -> None:
        while (seconds := max(self._pace.owed_seconds(), moment - time.monotonic())) > _LEAST_SECONDS:
            nap = min(seconds, _TICK_SECONDS)
            await asyncio.sleep(nap)
            self._pace.rested(nap)
            self.pulse.beat()

    async def _look(self, place: Place) -> None:
        audit, report = self._audits[place], AuditReport()
        began = time.process_time()
        try:
            total = await asyncio.to_thread(audit.rows)
            if total <= self._pace.rows:
                rows = await audit.whole(report)
            else:
                rows = await audit.sample(report, self._pace.rows, self._differing.get(place, ()))
        except (OfflineUnavailable, TornTable) as error:
            if audit.view.in_force:  # another version may just have been filled, and the offline store follows
                self._board.down("offline", str(error))
            return
        except (StoreUnavailable, StoreError) as error:
            log.warning("a partition could not be compared", view=place[0], partition=place[1], reason=str(error))
            return
        self._board.up("offline")
        self._pace.learn(rows, time.process_time() - began)
        metrics.AUDIT_COMPARED.labels(place[0]).inc(report.checked)
        metrics.AUDIT_LEFT_OUT.labels(place[0]).inc(report.left_out)
        if not report.left_out:
            await self._tell(place, report)

    async def _look_archive(self, event: str) -> None:
        """Compares the next piece of an event's archive with its topic."""
        try:
            reports = await self._archives[event].look(self._pace.rows, self._kept.kept_since_ms(now_ms()))
        except (OfflineUnavailable, TornTable) as error:
            self._board.down("offline", str(error))
            return
        except (KafkaUnavailable, TopicRecreated) as error:
            log.warning("an archive could not be compared", archive=event, reason=str(error))
            return
        self._board.up("offline")  # also while no view is there to be compared
        for partition, report in reports.items():
            metrics.AUDIT_ARCHIVED.labels(event).inc(report.checked)
            metrics.AUDIT_ARCHIVE_DIFFERING.labels(event, partition).set(report.mismatched)
            place = event_folder(event), partition
            if report.examples and report.examples != self._differing.get(place):
                mend = "look for the cause; what Kafka holds can be archived again by moving the table away"
                log.error("the archive is not what the topic says", archive=event, partition=partition, what=report.examples, mend=mend)
            self._differing[place] = report.examples
            self._alerts.found(place, report)

    async def _tell(self, place: Place, report: AuditReport) -> None:
        """Reports differences: as a metric, as an alert, and, for entities that did not differ before, as log messages with a
        counter-example."""
        known = self._differing.get(place, [])
        self._differing[place] = [found.entity for found in report.examples if found.entity is not None]
        metrics.AUDIT_DIFFERING.labels(*place).set(report.mismatched)
        self._alerts.found(place, report)
        await self._show(place, [found for found in report.examples if found.entity not in known])

    async def _show(self, place: Place, news: Sequence[Mismatch]) -> None:
        for found in news:
            log.error(
                "the online store is not what the log says",
                view=found.view,
                partition=found.partition,
                entity=found.entity or "fence",
                fence=found.fence,
                what=found.what,
                mend=f"look at the counter-example; then run: tidemill rebuild {found.view} --partition {found.partition}",
            )
        first = next((found for found in news if found.entity is not None), None)
        if first is not None:
            example = await asyncio.to_thread(self._audits[place].counterexample, first, SHOWN_ROWS)
            log.error("counter-example", **shown(example))
