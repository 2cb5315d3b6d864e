"""The archive in the rounds of the audit: what is lost is told as a metric and an alert, and is over once it is mended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest
from tests.proof.test_archive_audit import Case, filled

from tidemill.archive.retention import ArchiveSettings
from tidemill.archive.rows import event_table
from tidemill.redis.link import RedisLink
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.streams.alerts import read_alerts
from tidemill_audit.alerts import Alerts
from tidemill_audit.rounds import Rounds
from tidemill_audit.settings import PaceSettings

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def audited(case: Case, redis_url: str) -> AsyncIterator[None]:
    """The audit beside the test, of the archive alone."""
    board, project = HealthBoard("offline"), replace(case.project, views={}, models={})
    alerts = Alerts(project, case.kafka, board)
    async with RedisLink(redis_url, timeout_seconds=10) as link:
        rounds = Rounds(project, case.store, link, case.kafka, PaceSettings.load(), ArchiveSettings(days=None), alerts, board)
        going = [asyncio.create_task(rounds.run()), asyncio.create_task(alerts.run())]
        try:
            yield
        finally:
            for task in going:
                task.cancel()
            await asyncio.gather(*going, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.05)


async def test_an_event_that_the_archive_lost(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, and closed when the event is there again."""
    monkeypatch.setenv("TIDEMILL_AUDIT_PERIOD", "1s")
    monkeypatch.setenv("TIDEMILL_AUDIT_CPU", "1")
    case = await filled(kafka, topic_prefix, tmp_path)
    differing = metrics.AUDIT_ARCHIVE_DIFFERING.labels("trips", 0)
    log = case.store.topic_table(event_table(case.project, case.trips, case.store.snapshot("events/trips").schema))
    lost = case.store.snapshot("events/trips").scan(log.spec.schema.names, pc.field("_offset") == 5, order=())
    log.delete("_offset = 5")
    async with audited(case, redis_url):
        await until(lambda: differing._value.get() == 1)
        log.append(lost, {})
        await until(lambda: differing._value.get() == 0)
    assert [(alert.state, alert.view) for alert in await read_alerts(case.kafka, case.project.name)] == [
        ("opened", "events/trips"),
        ("closed", "events/trips"),
    ]
