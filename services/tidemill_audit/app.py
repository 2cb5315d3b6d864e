"""Wiring of the continuous audit: the rounds, verifying beside them, the alerts, and the HTTP answers."""

from __future__ import annotations

from functools import partial

from tidemill.declarations.project import load_project
from tidemill.offline.store import OfflineStore
from tidemill.redis.client import keep_asking, redis_client
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Service, run_together
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.following import Following, InForce, everything_of
from tidemill_audit.alerts import Alerts
from tidemill_audit.rounds import Rounds
from tidemill_audit.settings import AuditSettings
from tidemill_audit.verifying import Verifying

REDIS_TIMEOUT_SECONDS = 5.0


def build(settings: AuditSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    project = load_project(settings.project.project)
    board = HealthBoard("redis", "kafka", "offline")
    link = redis_client(settings.redis.url, REDIS_TIMEOUT_SECONDS, partial(board.report, "redis"))
    store, pulses = OfflineStore(settings.offline.root), list[Pulse]()
    following = Following(settings.kafka, project, _uses, partial(board.down, "kafka"), pulses)

    async def compare(now: InForce) -> None:
        alerts = Alerts(now.project, settings.kafka, board)
        rounds = Rounds(now.project, store, link, settings.kafka, settings.pace, settings.archive, alerts, board)
        verifying = Verifying(now, store, link, settings.kafka, settings.pace, settings.archive, alerts)
        pulses[:] = [rounds.pulse, verifying.pulse, alerts.pulse]
        await run_together(rounds.run(), verifying.run(), alerts.run())

    async def work() -> None:
        async with link:
            await run_together(following.run(compare), keep_asking(link))

    return Service(settings, board, OpsApp(board), work, pulses)


def _uses(now: InForce) -> object:
    """All that is declared, and from where logs are fed."""
    return everything_of(now), now.definitions.begins, now.definitions.in_force
