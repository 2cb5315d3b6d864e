"""Wiring of the offline writer: one mirror per topic, and the HTTP answers beside them."""

from __future__ import annotations

from tidemill.declarations.project import Project, load_project
from tidemill.offline.mirror import Mirror, need_topics
from tidemill.offline.positions import PositionsApp
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import MirrorTable, outcomes_table, requests_table, view_table
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import run_together, run_workers
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
    pulses = [mirror.pulse for mirror in mirrors]

    async def work() -> None:
        await need_topics(project, settings.kafka, board, [mirror.table.topic for mirror in mirrors], pulses)
        await run_together(*(mirror.run() for mirror in mirrors))

    await run_workers(PositionsApp(board, mirrors), settings.http, work(), pulses, board)
