"""Wiring of the offline writer: one mirror per topic of ours, one archive per event, and the HTTP application."""

from __future__ import annotations

from functools import partial

from tidemill.archive.writer import ArchiveWriter
from tidemill.declarations.project import Project, load_project
from tidemill.offline.mirror import Follower, Mirror
from tidemill.offline.positions import PositionsApp
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import MirrorTable, view_table
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Service, run_together
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.following import Following, InForce, views_and_events_of
from tidemill.streams.view_logs import need_topics
from tidemill_offline.settings import OfflineWriterSettings


def tables_of(project: Project) -> list[MirrorTable]:
    """The tables that this service writes; the table of predictions belongs to prediction logging."""
    return [view_table(project, view) for view in project.views.values()]


def build(settings: OfflineWriterSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    project = load_project(settings.project.project)
    board = HealthBoard("topics")
    store = OfflineStore(settings.offline.root)
    flush = settings.flush.flush()
    tell = partial(board.down, "topics")

    def made(now: Project) -> list[Follower]:
        views = [Mirror(store, table, settings.kafka, board, flush) for table in tables_of(now)]
        return [
            *views,
            *(ArchiveWriter(store, now, event, settings.kafka, board, flush, settings.archive) for event in now.events.values()),
        ]

    mirrors, pulses = made(project), list[Pulse]()

    async def mirror(now: InForce) -> None:
        before, mirrors[:] = {each.table.name for each in mirrors}, made(now.project)
        for gone in before - {each.table.name for each in mirrors}:
            board.forget(gone)
        pulses[:] = [each.pulse for each in mirrors]
        await need_topics(settings.kafka, now.project, tell, pulses, [each.table.topic for each in mirrors])
        board.up("topics")
        await run_together(*(each.run() for each in mirrors))

    async def work() -> None:
        await Following(settings.kafka, project, views_and_events_of, tell, pulses).run(mirror)

    return Service(settings, board, PositionsApp(board, mirrors), work, pulses)
