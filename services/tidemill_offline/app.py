"""Wiring of the offline writer: one mirror per topic, and the HTTP answers beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tidemill.errors import KafkaUnavailable, TopicMismatch
from tidemill.health import HealthBoard
from tidemill.kafka_topics import ensure_topics
from tidemill.offline.mirror import RETRY_SECONDS, Mirror
from tidemill.offline.positions import PositionsApp
from tidemill.offline.tables import MirrorTable, outcomes_table, requests_table, view_table
from tidemill.offline_store import OfflineStore
from tidemill.project import Project, load_project
from tidemill.settings import KafkaSettings
from tidemill.topics import topic_specs
from tidemill.worker import run_workers
from tidemill_offline.settings import OfflineWriterSettings


def tables_of(project: Project) -> list[MirrorTable]:
    """What this service writes; the table of predictions belongs to prediction logging."""
    return [*(view_table(project, view) for view in project.views.values()), requests_table(project), outcomes_table(project)]


async def run(settings: OfflineWriterSettings) -> None:
    """Mirror all topics until SIGTERM. Raises ProjectError, DeclarationError or SettingsError when it cannot start."""
    project = load_project(settings.project.project)
    board = HealthBoard("topics")
    store = OfflineStore(settings.offline.root)
    mirrors = [Mirror(store, table, settings.kafka, board, settings.flush.flush()) for table in tables_of(project)]
    app = PositionsApp(board, mirrors)
    await run_workers(app, settings.http, _mirror_all(project, settings.kafka, board, mirrors))


async def _mirror_all(project: Project, kafka: KafkaSettings, board: HealthBoard, mirrors: Sequence[Mirror]) -> None:
    await _need_topics(project, kafka, board, mirrors)
    async with asyncio.TaskGroup() as group:
        for mirror in mirrors:
            group.create_task(mirror.run())


async def _need_topics(project: Project, kafka: KafkaSettings, board: HealthBoard, mirrors: Sequence[Mirror]) -> None:
    """Makes the topics that are missing; waits for Kafka, and for someone to mend a topic of another shape."""
    specs = topic_specs(project)
    while True:
        try:
            await ensure_topics(kafka, {mirror.table.topic: specs[mirror.table.topic] for mirror in mirrors})
        except (KafkaUnavailable, TopicMismatch) as error:
            board.down("topics", str(error))
            await asyncio.sleep(RETRY_SECONDS)
        else:
            board.up("topics")
            return
