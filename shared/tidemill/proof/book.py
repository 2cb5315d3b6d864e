"""Facts about a whole partition that the check of any entity needs, in little memory. They are read once, later only from new rows.

Which records ingestion sent twice depends on the source positions of all records of a partition, and which ids it had lately on its time.
Once these are known, the rows of one entity can be folded alone. The book also counts the rows of each entity. So the audit draws samples of a known size, and entities that the
store lost too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from tidemill.clock import Deadline
from tidemill.declarations import FeatureView
from tidemill.errors import OfflineUnavailable
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import LogEntry
from tidemill.offline.history import PartitionLog
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.proof.log_times import LogTimes
from tidemill.records import since_of

SLICE_ROWS = 200_000
_RETRY_SECONDS = 0.5
_COLUMNS = ["offset", "key", "proof", "known", "time", "source_partition", "source_offset"]

Breathe = Callable[[], None]
"""Called between pieces of work, so that other processes get the processor."""
T = TypeVar("T")


def waited_for(look: Callable[[], T | None], seconds: float, breathe: Breathe) -> T | None:
    """What `look` finds, as soon as it finds anything; None: it found nothing within these seconds."""
    deadline = Deadline(seconds)
    while (found := look()) is None and not deadline.expired:
        time.sleep(_RETRY_SECONDS)
        breathe()
    return found


def snapshot_reaching(store: OfflineStore, view: FeatureView, partition: int, offset: int, wait_seconds: float) -> Snapshot | None:
    """Waits until the offline rows of a view reach an offset of a partition, and returns them. None: there are no rows, and `offset` is 0.

    Raises OfflineUnavailable when they do not reach it within `wait_seconds`.
    """
    deadline = Deadline(wait_seconds)
    while True:
        snapshot = store.find(view_folder(view.log))
        end = 0 if snapshot is None else snapshot.positions.get(partition, 0)
        if end >= offset:
            return snapshot
        if deadline.expired:
            raise OfflineUnavailable(
                f"view {view.name!r}, partition {partition}: the offline store ends at {end}, the online fence is {offset}",
                mend="see that the offline writer runs (tidemill status) and try again",
            )
        time.sleep(_RETRY_SECONDS)


def between(partition: int, start: int, end: int) -> pc.Expression:
    """Rows of a partition from offset `start` to `end`."""
    return (pc.field("partition") == partition) & (pc.field("offset") >= start) & (pc.field("offset") < end)


class PartitionBook:
    """Facts about the rows of one partition below `next`. `since_ms`: since when the view is fed; `resent`: offsets of records that
    ingestion sent twice; `rows_of`: the number of rows by entity."""

    def __init__(self, view: FeatureView, partition: int) -> None:
        self._view, self._partition = view, partition
        self._restart()

    def _restart(self) -> None:
        self.next, self.proof, self.poison, self.since_ms = 0, 0, 0, 0
        self.sources: dict[int, int] = {}
        self.resent: set[int] = set()
        self.rows_of: dict[str, int] = {}
        self._times = None if self._view.dedupe_ms is None else LogTimes(self._view)

    def advance(self, snapshot: Snapshot, end: int, breathe: Breathe = lambda: None) -> None:
        """Reads the rows from `next` to `end`. When `end` lies before `next`, it starts again from the first row."""
        if end < self.next:
            self._restart()
        while self.next < end:
            upto = min(self.next + SLICE_ROWS, end)
            self._take(snapshot.scan(_COLUMNS, between(self._partition, self.next, upto)))
            self.next = upto
            breathe()

    def _take(self, rows: pa.Table) -> None:
        self.proof = rows["proof"][-1].as_py()
        for counted in pc.value_counts(rows["key"]).to_pylist():
            self.rows_of[counted["values"]] = self.rows_of.get(counted["values"], 0) + counted["counts"]
        usable = rows.filter(pc.field("time").is_valid())
        starts_ms = [
            since_ms
            for key in rows.filter(pc.field("time").is_null())["key"].to_pylist()
            if (since_ms := since_of(key.encode())) is not None
        ]
        self.since_ms = max([self.since_ms, *starts_ms])
        self.poison += len(rows) - len(usable) - len(starts_ms)
        partitions, offsets = usable["source_partition"].to_numpy(), usable["source_offset"].to_numpy()
        places = usable["offset"].to_numpy()
        if self._times is not None:
            self._times.take(places, usable["known"].to_numpy())
        for source in map(int, np.unique(partitions)):
            mine = np.flatnonzero(partitions == source)
            highest = np.maximum.accumulate(np.concatenate(([self.sources.get(source, -1)], offsets[mine])))
            self.resent.update(places[mine[offsets[mine] <= highest[:-1]]].tolist())
            self.sources[source] = int(highest[-1])

    def differing(self, fence: Fence) -> str:
        """Where a fence at `next` differs from the rows, as far as this is known without folding them. Empty: nowhere."""
        expected = {
            "next": self.next,
            "proof": self.proof,
            "sources": self.sources,
            "resent": len(self.resent),
            "poison": self.poison,
            "since_ms": self.since_ms,
            "turns": msgspec.UNSET if self._times is None else self._times.turns or msgspec.UNSET,
        }
        pairs = [(name, getattr(fence, name), wanted) for name, wanted in expected.items()]
        return "; ".join(f"{name} is {found!r}, the rows give {wanted!r}" for name, found, wanted in pairs if found != wanted)

    def entries(self, snapshot: Snapshot, entities: Collection[str], end: int) -> list[LogEntry]:
        """The rows of some entities below `end`, as they are folded without those of others. Only these rows are read whole."""
        rows = snapshot.scan(filters=between(self._partition, 0, end), among=("key", entities))
        return self._alone(list(PartitionLog(self._view, rows).entries()))

    def _alone(self, entries: list[LogEntry]) -> list[LogEntry]:
        """Each record becomes known at the time of the log; one that ingestion sent twice has a source position that says so."""
        if self._times is not None:
            times_ms = self._times.at_ms(np.array([entry.offset for entry in entries], np.int64)).tolist()
            entries = [_with(entry, known=time_ms) for entry, time_ms in zip(entries, times_ms, strict=True)]
        return [_with(entry, source=(0, -1)) if entry.offset in self.resent else entry for entry in entries]

    def draw(self, after: str, most_rows: int) -> list[str]:
        """At least one entity, and more while all of them together have at most `most_rows` rows. They come in order of their names: first
        those after `after`, then from the first name again."""
        names = sorted(self.rows_of)
        begin = next((i for i, name in enumerate(names) if name > after), 0)
        drawn: list[str] = []
        for name in [*names[begin:], *names[:begin]]:
            most_rows -= self.rows_of[name]
            if drawn and most_rows < 0:
                break
            drawn.append(name)
        return drawn


def _with(entry: LogEntry, **changes: Any) -> LogEntry:
    """An entry whose record says something else; a broken one as it is."""
    record: Any = entry.record
    return entry if record is None else replace(entry, record=replace(record, **changes))
