"""Wiring of prediction logging: the mirrors of predictions and of shadows, the join, and the HTTP answers beside them."""

from __future__ import annotations

from functools import partial

from tidemill.declarations.project import load_project
from tidemill.offline.mirror import Mirror
from tidemill.offline.positions import PositionsApp
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import predictions_table, shadows_table
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Service, run_together
from tidemill.streams.following import Following, InForce, models_of
from tidemill.streams.topics import outcomes_topic, results_topic
from tidemill.streams.view_logs import need_topics
from tidemill_predlog.joiner import Joiner
from tidemill_predlog.settings import PredictionLogSettings


def build(settings: PredictionLogSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    project = load_project(settings.project.project)
    board = HealthBoard("topics", "join")
    store = OfflineStore(settings.offline.root)
    predictions, shadows = predictions_table(project), shadows_table(project)
    mirrors = [Mirror(store, table, settings.kafka, board, settings.flush.flush()) for table in (predictions, shadows)]
    pulses = [mirror.pulse for mirror in mirrors]
    tell = partial(board.down, "topics")
    following = Following(settings.kafka, project, models_of, tell, pulses)

    async def join(now: InForce) -> None:
        board.up("topics")  # not before: until the catalogue was read, `following` may say that Kafka is away
        joiner = Joiner(store, now.project, predictions, settings.kafka, board)
        pulses[:] = [*(mirror.pulse for mirror in mirrors), joiner.pulse]
        await joiner.run()

    async def work() -> None:
        needed = [predictions.topic, shadows.topic, outcomes_topic(project.name), results_topic(project.name)]
        await need_topics(settings.kafka, project, tell, pulses, needed)
        await run_together(*(mirror.run() for mirror in mirrors), following.run(join))

    return Service(settings, board, PositionsApp(board, mirrors), work, pulses)
