"""Waiting for the offline writer: no example may lack events only because they are not written yet."""

from __future__ import annotations

import asyncio

from tidemill.clock import Deadline
from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError, UnknownTable
from tidemill.kafka.topics import offset_ranges
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import outcomes_topic, requests_topic, view_topic
from tidemill.streams.view_logs import check_logs

_RETRY_SECONDS = 0.2


async def wait_written(project: Project, model: Model, store: OfflineStore, kafka: KafkaSettings, timeout_seconds: float = 60) -> None:
    """Waits until the offline store has all records that the topics of a model hold now. Raises TidemillError when a table still lags after
    `timeout_seconds`.

    Raises UnfilledLog for a view whose records are in another log than the declared one.
    """
    await check_logs(kafka, project, model.views)
    tables = {requests_topic(project.name): "requests", outcomes_topic(project.name): "outcomes"}
    tables |= {view_topic(project.name, view.log): view_folder(view.log) for view in model.views}
    held = await offset_ranges(kafka, *tables)
    deadline = Deadline(timeout_seconds)
    for topic, table in tables.items():
        ends = {tp.partition: found.end for tp, found in held.items() if tp.topic == topic and found.end}
        while lagging := _lagging(store, table, ends):
            if deadline.expired:
                partition, position = lagging
                raise TidemillError(
                    f"the offline store has {table} up to {position}, but {topic}[{partition}] goes up to {ends[partition]}",
                    mend="see that the offline writer runs (tidemill status) and train again",
                )
            await asyncio.sleep(_RETRY_SECONDS)


def _lagging(store: OfflineStore, table: str, ends: dict[int, int]) -> tuple[int, int] | None:
    """A partition whose rows are not all written, and the offset up to which they are; None when all are."""
    try:
        positions = store.snapshot(table).positions if ends else {}
    except UnknownTable:
        positions = {}
    return next(((p, positions.get(p, 0)) for p, end in ends.items() if positions.get(p, 0) < end), None)
