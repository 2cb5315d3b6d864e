"""Wiring of drift detection: the detector, the delivery of alerts, and the HTTP answers beside them."""

from __future__ import annotations

from functools import partial

from tidemill.declarations.project import load_project
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Service, run_together
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.following import Following, InForce, models_of
from tidemill_drift.delivery import AlertDelivery
from tidemill_drift.detector import Detector
from tidemill_drift.settings import DriftSettings
from tidemill_drift.sinks import sinks_of


def build(settings: DriftSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    project = load_project(settings.project.project)
    board, pulses = HealthBoard("kafka"), list[Pulse]()
    following = Following(settings.kafka, project, models_of, partial(board.down, "kafka"), pulses)

    async def watch(now: InForce) -> None:
        detector = Detector(now.project, settings.kafka, settings.offline.root, settings.windows, board)
        pulses[:] = [detector.pulse]
        await detector.run()

    deliveries = [AlertDelivery(project, settings.kafka, sink) for sink in sinks_of(settings.delivery)]

    async def work() -> None:
        await run_together(following.run(watch), *(delivery.run() for delivery in deliveries))

    return Service(settings, board, OpsApp(board), work, pulses)
