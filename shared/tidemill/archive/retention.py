"""How long events are archived."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tidemill.archive.columns import KNOWN, MOMENT, event_folder
from tidemill.declarations import Event
from tidemill.offline.store import OfflineStore
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import Settings
from tidemill.timestamps import rfc3339

log = get_logger(__name__)

_DAY_MS = 86_400_000


class ArchiveSettings(Settings):
    """How long the archive keeps events."""

    days: int | None = Field(
        None, validation_alias="TIDEMILL_ARCHIVE_DAYS", ge=1, description="days that events are archived after they became known"
    )

    def kept_since_ms(self, now_ms: int) -> int:
        """Events that became known earlier are deleted; 0: none.

        It moves at midnight (UTC), so that files are rewritten once a day and not at every look.
        """
        return 0 if self.days is None else max(0, (now_ms // _DAY_MS - self.days) * _DAY_MS)


def forget_before(store: OfflineStore, event: Event, known_ms: int) -> int:
    """Delete the archived events that became known before a moment; returns how many. Raises OfflineUnavailable.

    Their bytes go with the files that are replaced: at most about an hour later (`CountedTable.tidy`).
    """
    table, before = event_folder(event.name), pa.scalar(known_ms * 1000, pa.int64()).cast(MOMENT)
    snapshot = store.find(table)
    if snapshot is None or not len(snapshot.scan([KNOWN], pc.field(KNOWN) < before, order=())):
        return 0
    deleted = store.counted_table(table, pa.schema([])).delete(f"{KNOWN} < '{rfc3339(known_ms)}'")
    log.info("deleted events that are older than the archive keeps them", table=table, known_before=rfc3339(known_ms), events=deleted)
    return deleted
