"""Wiring of prediction logging: the mirror of predictions, the join, and the HTTP answers beside them."""

from __future__ import annotations

from tidemill.declarations.project import load_project
from tidemill.offline.mirror import Mirror, need_topics
from tidemill.offline.positions import PositionsApp
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import outcomes_table, predictions_table
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import run_together, run_workers
from tidemill.streams.topics import results_topic
from tidemill_predlog.joiner import Joiner
from tidemill_predlog.settings import PredictionLogSettings


async def run(settings: PredictionLogSettings) -> None:
    """Log and join until SIGTERM. Raises ProjectError, DeclarationError or SettingsError when it cannot start."""
    project = load_project(settings.project.project)
    board = HealthBoard("topics")
    store = OfflineStore(settings.offline.root)
    predictions, outcomes = predictions_table(project), outcomes_table(project)
    mirror = Mirror(store, predictions, settings.kafka, board, settings.flush.flush())
    joiner = Joiner(store, project, (predictions, outcomes), settings.kafka, board)
    pulses = [mirror.pulse, joiner.pulse]

    async def work() -> None:
        await need_topics(project, settings.kafka, board, [predictions.topic, outcomes.topic, results_topic(project.name)], pulses)
        await run_together(mirror.run(), joiner.run())

    await run_workers(PositionsApp(board, [mirror]), settings.http, work(), pulses, board)
