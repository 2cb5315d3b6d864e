"""Going round: what cannot be compared now is passed over, and readiness says so for no longer than it is true."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.demo_state import demo
from tests.proof.conftest import Online, events
from tests.proof.world import World

from tidemill.archive.retention import ArchiveSettings
from tidemill.redis.link import RedisLink
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill_audit.alerts import Alerts
from tidemill_audit.rounds import Rounds
from tidemill_audit.settings import PaceSettings

pytestmark = pytest.mark.integration
PATIENCE_SECONDS = 180.0


async def said(board: HealthBoard, reason: str | None) -> None:
    """Returns once the board says this of the offline store; None: that it is there."""

    def so() -> bool:
        now = board.missing.get("offline")
        return now is None if reason is None else reason in (now or "")

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not so():
            await asyncio.sleep(0.02)


async def test_an_offline_store_that_caught_up_is_soon_known(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline rows that lag make the audit unready; once they are there it is ready again, long before the next round."""
    monkeypatch.setenv("TIDEMILL_AUDIT_PERIOD", "10h")
    monkeypatch.setenv("TIDEMILL_AUDIT_CPU", "1")
    monkeypatch.setattr("tidemill_audit.rounds.WAIT_SECONDS", 0.1)
    monkeypatch.setattr("tidemill_audit.rounds.RETRY_SECONDS", 0.1)
    world, board = World(demo(), tmp_path), HealthBoard("offline")
    world.publish(events(100))
    Online(world, redis_url).apply()
    alerts = Alerts(world.project, KafkaSettings(bootstrap_servers="localhost:1"), board)
    async with RedisLink(redis_url, timeout_seconds=10) as link:
        rounds = Rounds(
            world.project,
            world.store,
            link,
            KafkaSettings(bootstrap_servers="localhost:1"),
            PaceSettings.load(),
            ArchiveSettings(days=None),
            alerts,
            board,
        )
        going = asyncio.create_task(rounds.run())
        try:
            await said(board, "the offline store ends at 0")
            world.write()
            await said(board, None)
        finally:
            going.cancel()
