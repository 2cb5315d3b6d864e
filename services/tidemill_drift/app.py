"""Wiring of drift detection: the detector and the HTTP answers beside it."""

from __future__ import annotations

from tidemill.declarations.project import load_project
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Service
from tidemill_drift.detector import Detector
from tidemill_drift.settings import DriftSettings


def build(settings: DriftSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    project = load_project(settings.project.project)
    board = HealthBoard("kafka")
    detector = Detector(project, settings.kafka, settings.offline.root, settings.windows, board)
    return Service(settings, board, OpsApp(board), detector.run, [detector.pulse])
