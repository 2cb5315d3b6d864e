"""Verifying, beside the audit: once a minute a few entities of each view, predictions and results are computed anew in SQL from the archive."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from tidemill.archive.retention import ArchiveSettings
from tidemill.clock import now_ms
from tidemill.declarations import FeatureView
from tidemill.errors import KafkaUnavailable, OfflineUnavailable, StoreError, StoreUnavailable, TopicRecreated, TornTable
from tidemill.kafka.topics import offset_ranges
from tidemill.offline.store import OfflineStore
from tidemill.proof.verified import SampleSize, Verified, ViewVerify
from tidemill.proof.verified_results import RESULTS, ResultsVerify
from tidemill.redis.protocol import RedisClient
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.following import InForce
from tidemill_audit.alerts import Alerts, Place
from tidemill_audit.settings import PaceSettings

log = get_logger(__name__)

EVERY_SECONDS = 60.0
WAIT_SECONDS = 30.0  # for the archive and the view's rows to have what the online store has
_SHARE = 0.25  # of what the audit may use of a processor
_SAMPLE = SampleSize()
_RESULTS = 4
_ALSO = 5  # entities that differed, looked at again
_TICK_SECONDS = 1.0


class Verifying:
    """Verifies round after round until cancelled. What cannot be compared now is passed over, and counted by reason."""

    def __init__(
        self,
        now: InForce,
        store: OfflineStore,
        link: RedisClient,
        kafka: KafkaSettings,
        settings: PaceSettings,
        archive: ArchiveSettings,
        alerts: Alerts,
    ) -> None:
        self._every_seconds, self._cpu = min(EVERY_SECONDS, settings.period_seconds), settings.cpu
        self._store, self._kafka, self._kept, self._alerts, self._now = store, kafka, archive, alerts, now
        self.pulse = Pulse("verifying")
        begins = now.definitions.begins
        self._views = [
            ViewVerify(now.project, view, store, link, begins.get(view.log, {}), WAIT_SECONDS, self.pulse.beat, now.definitions.time)
            for view in verified_views(now)
        ]
        self._results: list[ResultsVerify] | None = None
        self._differing: dict[Place, list[str]] = {}
        self._seed = random.SystemRandom().getrandbits(32)
        self._draw = random.Random(self._seed)

    async def run(self) -> None:
        """Verify until cancelled."""
        log.info("verifying", seed=self._seed, every_seconds=self._every_seconds)
        while True:
            began = time.process_time()
            await self._round()
            pa.default_memory_pool().release_unused()
            used = time.process_time() - began
            metrics.AUDIT_VERIFY_SECONDS.inc(used)
            await self._rest(max(self._every_seconds, used / (self._cpu * _SHARE)))

    async def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.pulse.beat()
            await asyncio.sleep(min(left, _TICK_SECONDS))

    async def _round(self) -> None:
        """One partition of each view, and results of each model; a partition with a difference again until it is right."""
        for view in self._views:
            drawn = self._draw.randrange(view.view.partitions)
            wrong = [partition for name, partition in self._differing if name == view.view.name]
            for partition in dict.fromkeys([*wrong, drawn]):
                await self._look(view, partition)
        try:
            for results in await self._all_results():
                await self._look_at_results(results)
        except (KafkaUnavailable, TopicRecreated, OfflineUnavailable, TornTable, duckdb.Error) as error:
            log.warning("results could not be verified", reason=str(error))
            metrics.AUDIT_VERIFY_LEFT_OUT.labels(RESULTS, "failed").inc()

    async def _look(self, view: ViewVerify, partition: int) -> None:
        place = view.view.name, partition
        also = self._differing.get(place, [])[:_ALSO]
        try:
            report = await view.look(partition, _SAMPLE, self._draw, also, self._kept.kept_since_ms(now_ms()))
        except (StoreUnavailable, StoreError, OfflineUnavailable, TornTable, duckdb.Error) as error:
            log.warning("a partition could not be verified", view=view.view.name, partition=partition, reason=str(error))
            metrics.AUDIT_VERIFY_LEFT_OUT.labels(view.view.name, "failed").inc()
            return
        if report.mismatched or (report.checked and report.entities.issuperset(also)):
            self._tell(place, report)
        self._count(place[0], report)

    async def _all_results(self) -> Sequence[ResultsVerify]:
        """By model. After the catalogue has changed, results from before this process knew it may be those of another declaration."""
        if self._results is None:
            snapshot = await asyncio.to_thread(self._store.find, RESULTS) if self._now.definitions.number > 1 else None
            since = 0 if snapshot is None else snapshot.counter("seq")
            models = self._now.project.models.values()
            self._results = [ResultsVerify(model, self._store, since, WAIT_SECONDS, self.pulse.beat) for model in models]
        return self._results

    async def _look_at_results(self, results: ResultsVerify) -> None:
        drawn = await asyncio.to_thread(results.draw, _RESULTS, self._draw)
        if not drawn:
            return
        held = await offset_ranges(self._kafka, results.model.outcome.source.topic)
        ends = {target.partition: found.end for target, found in held.items()}
        report = await asyncio.to_thread(results.look, drawn, ends, self._kept.kept_since_ms(now_ms()))
        place = f"{RESULTS}/{results.model.name}", 0
        if report.checked:
            self._tell(place, report)
        self._count(place[0], report)

    def _count(self, name: str, report: Verified) -> None:
        metrics.AUDIT_VERIFIED.labels(name).inc(report.checked)
        metrics.AUDIT_VERIFY_UNDECIDED.labels(name).inc(report.compared.undecided)
        for reason, many in report.left_out.items():
            metrics.AUDIT_VERIFY_LEFT_OUT.labels(name, reason).inc(many)

    def _tell(self, place: Place, report: Verified) -> None:
        """Reports on a partition: as a metric, as an alert, and new differences as log messages with the events that SQL used."""
        known = self._differing.pop(place, [])
        if report.mismatched:
            self._differing[place] = report.differing
        metrics.AUDIT_VERIFY_DIFFERING.labels(*place).set(report.mismatched)
        self._alerts.found(place, report)
        if set(report.differing) - set(known) or (report.mismatched and not known):
            log.error(
                "values are not what SQL makes of the archived events",
                view=place[0],
                partition=place[1],
                what=report.examples,
                events=report.compared.examples[0].events,
                seed=self._seed,
                mend="look at the events; run: tidemill audit, which says whether store, rows and archive agree with the logs",
            )


def verified_views(now: InForce) -> list[FeatureView]:
    """The versions of views that are in force, or were. One that is younger may still be filled."""
    in_force = now.definitions.in_force
    return [view for view in now.project.views.values() if view.version <= in_force.get(view.plain_name, view.version)]
