"""Wiring of drift detection: the detector and the HTTP answers beside it."""

from __future__ import annotations

from functools import partial

from tidemill.declarations.project import load_project
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Service
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.following import Following, InForce, models_of
from tidemill_drift.detector import Detector
from tidemill_drift.settings import DriftSettings


def build(settings: DriftSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    project = load_project(settings.project.project)
    board, pulses = HealthBoard("kafka"), list[Pulse]()
    following = Following(settings.kafka, project, models_of, partial(board.down, "kafka"), pulses)

    async def watch(now: InForce) -> None:
        detector = Detector(now.project, settings.kafka, settings.offline.root, settings.windows, board)
        pulses[:] = [detector.pulse]
        await detector.run()

    return Service(settings, board, OpsApp(board), partial(following.run, watch), pulses)
