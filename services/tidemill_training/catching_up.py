"""Waiting for the offline writer: an example must not lack what its request had seen, only because it is not written yet."""

from __future__ import annotations

import asyncio
import time

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
    """Returns once the offline store has all that the topics a model learns from hold now. Raises TidemillError naming what is behind.

    Raises UnfilledLog for a view whose records live in another log than the one declared.
    """
    await check_logs(kafka, project, model.views)
    tables = {requests_topic(project.name): "requests", outcomes_topic(project.name): "outcomes"}
    tables |= {view_topic(project.name, view.log): view_folder(view.log) for view in model.views}
    held = await offset_ranges(kafka, *tables)
    deadline = time.monotonic() + timeout_seconds
    for topic, table in tables.items():
        ends = {tp.partition: found.end for tp, found in held.items() if tp.topic == topic and found.end}
        while behind := _behind(store, table, ends):
            if time.monotonic() > deadline:
                partition, position = behind
                raise TidemillError(
                    f"the offline store has {table} up to {position}, but {topic}[{partition}] goes up to {ends[partition]}",
                    mend="see that the offline writer runs (tidemill status) and train again",
                )
            await asyncio.sleep(_RETRY_SECONDS)


def _behind(store: OfflineStore, table: str, ends: dict[int, int]) -> tuple[int, int] | None:
    """A partition whose rows are not all written, and how far they are."""
    try:
        positions = store.snapshot(table).positions if ends else {}
    except UnknownTable:
        positions = {}
    return next(((p, positions.get(p, 0)) for p, end in ends.items() if positions.get(p, 0) < end), None)
