"""Wiring of the continuous audit: the rounds, the alerts, and the HTTP answers beside them."""

from __future__ import annotations

from functools import partial

from tidemill.declarations.project import load_project
from tidemill.offline.store import OfflineStore
from tidemill.redis.client import keep_asking, redis_client
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Service, run_together
from tidemill_audit.alerts import Alerts
from tidemill_audit.rounds import Rounds
from tidemill_audit.settings import AuditSettings

REDIS_TIMEOUT_SECONDS = 5.0


def build(settings: AuditSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    project = load_project(settings.project.project)
    board = HealthBoard("redis", "kafka", "offline")
    alerts = Alerts(project, settings.kafka, board)
    link = redis_client(settings.redis.url, REDIS_TIMEOUT_SECONDS, partial(board.report, "redis"))
    rounds = Rounds(project, OfflineStore(settings.offline.root), link, settings.kafka, settings.pace, settings.archive, alerts, board)

    async def work() -> None:
        async with link:
            await run_together(rounds.run(), alerts.run(), keep_asking(link))

    return Service(settings, board, OpsApp(board), work, [rounds.pulse, alerts.pulse])
