"""Wiring of drift detection: the detector and the HTTP answers beside it."""

from __future__ import annotations

from tidemill.declarations.project import load_project
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import run_workers
from tidemill_drift.detector import Detector
from tidemill_drift.settings import DriftSettings


async def run(settings: DriftSettings) -> None:
    """Watch until SIGTERM. Raises ProjectError, DeclarationError or SettingsError when it cannot start."""
    project = load_project(settings.project.project)
    board = HealthBoard("kafka")
    detector = Detector(project, settings.kafka, settings.offline.root, settings.windows, board)
    await run_workers(OpsApp(board), settings.http, detector.run(), [detector.pulse], board)
