"""Archived events that are no longer kept: by age, or because they belong to a person who wants to be forgotten."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import KNOWN, MOMENT, event_folder
from tidemill.declarations import Event
from tidemill.errors import UnknownTable
from tidemill.offline.store import OfflineStore
from tidemill.runtime.logs import get_logger
from tidemill.timestamps import rfc3339

log = get_logger(__name__)

_DAY_MS = 86_400_000


def last_midnight_ms(time_ms: int) -> int:
    """The last midnight (UTC) before a moment. Events are forgotten in whole days, so a file is rewritten once a day, not at every look."""
    return time_ms - time_ms % _DAY_MS


def forget_before(store: OfflineStore, event: Event, known_ms: int) -> int:
    """Delete the archived events that became known before a moment; returns how many. Raises OfflineUnavailable.

    Their bytes go with the files that are replaced: at most about an hour later (`CountedTable.tidy`).
    """
    table, before = event_folder(event.name), pa.scalar(known_ms * 1000, pa.int64()).cast(MOMENT)
    try:
        old = store.snapshot(table).scan([KNOWN], pc.field(KNOWN) < before, order=())
    except UnknownTable:
        return 0
    if not len(old):
        return 0
    deleted = store.counted_table(table, pa.schema([])).delete(f"{KNOWN} < '{rfc3339(known_ms)}'")
    log.info("deleted events that are older than the archive keeps them", table=table, known_before=rfc3339(known_ms), events=deleted)
    return deleted
