"""Wiring of the continuous audit: the rounds, the alerts, and the HTTP answers beside them."""

from __future__ import annotations

from functools import partial

from tidemill.declarations.project import load_project
from tidemill.offline.store import OfflineStore
from tidemill.redis.client import keep_asking, redis_client
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import run_together, run_workers
from tidemill_audit.alerts import Alerts
from tidemill_audit.rounds import Rounds
from tidemill_audit.settings import AuditSettings

REDIS_TIMEOUT_SECONDS = 5.0


async def run(settings: AuditSettings) -> None:
    """Compare until SIGTERM. Raises ProjectError, DeclarationError or SettingsError when it cannot start."""
    project = load_project(settings.project.project)
    board = HealthBoard("redis", "kafka", "offline")
    alerts = Alerts(project, settings.kafka, board)
    async with redis_client(settings.redis.url, REDIS_TIMEOUT_SECONDS, partial(board.report, "redis")) as link:
        rounds = Rounds(project, OfflineStore(settings.offline.root), link, settings.pace, alerts, board)
        work = run_together(rounds.run(), alerts.run(), keep_asking(link))
        await run_workers(OpsApp(board), settings.http, work, [rounds.pulse, alerts.pulse], board)
