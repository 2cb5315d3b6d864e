"""What a whole partition says about any of its entities, in little memory: read once, then only what is new.

Which records ingestion sent twice depends on the source positions of all records of a partition. With those known, an entity's history can be
read alone. The book also counts each entity's rows, so that a sample of known size can be drawn, also of entities that the store lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.clock import Deadline
from tidemill.declarations import FeatureView
from tidemill.errors import OfflineUnavailable, UnknownTable
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import LogEntry
from tidemill.offline.history import PartitionLog
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.records import since_of

SLICE_ROWS = 200_000
_RETRY_SECONDS = 0.5
_COLUMNS = ["offset", "key", "proof", "time", "source_partition", "source_offset"]

Breathe = Callable[[], None]
"""Called between pieces of work, to let others have the processor."""


def snapshot_reaching(store: OfflineStore, view: FeatureView, partition: int, offset: int, wait_seconds: float) -> Snapshot | None:
    """The offline rows of a view once they reach an offset of a partition; None: there are none, and none are needed.

    Raises OfflineUnavailable when they do not within `wait_seconds`.
    """
    deadline = Deadline(wait_seconds)
    while True:
        try:
            snapshot = store.snapshot(view_folder(view.log))
        except UnknownTable:
            snapshot = None
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
    """The rows of one partition below `next`, and since when they are fed. `resent`: offsets of records that were sent twice; `rows_of`: rows by entity."""

    def __init__(self, view: FeatureView, partition: int) -> None:
        self._view, self._partition = view, partition
        self._restart()

    def _restart(self) -> None:
        self.next, self.proof, self.poison, self.since_ms = 0, 0, 0, 0
        self.sources: dict[int, int] = {}
        self.resent: set[int] = set()
        self.rows_of: dict[str, int] = {}

    def advance(self, snapshot: Snapshot, end: int, breathe: Breathe = lambda: None) -> None:
        """Takes in the rows below `end`; when that lies behind, it begins anew."""
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
        told = [
            since_ms
            for key in rows.filter(pc.field("time").is_null())["key"].to_pylist()
            if (since_ms := since_of(key.encode())) is not None
        ]
        self.since_ms = max([self.since_ms, *told])
        self.poison += len(rows) - len(usable) - len(told)
        partitions, offsets = usable["source_partition"].to_numpy(), usable["source_offset"].to_numpy()
        places = usable["offset"].to_numpy()
        for source in map(int, np.unique(partitions)):
            mine = np.flatnonzero(partitions == source)
            highest = np.maximum.accumulate(np.concatenate(([self.sources.get(source, -1)], offsets[mine])))
            self.resent.update(places[mine[offsets[mine] <= highest[:-1]]].tolist())
            self.sources[source] = int(highest[-1])

    def differing(self, fence: Fence) -> str:
        """What a fence at `next` says otherwise than the rows, as far as that can be told without folding them; empty: nothing."""
        expected = {
            "next": self.next,
            "proof": self.proof,
            "sources": self.sources,
            "resent": len(self.resent),
            "poison": self.poison,
            "since_ms": self.since_ms,
        }
        pairs = [(name, getattr(fence, name), wanted) for name, wanted in expected.items()]
        return "; ".join(f"{name} is {found!r}, the rows give {wanted!r}" for name, found, wanted in pairs if found != wanted)

    def entries(self, snapshot: Snapshot, entities: Collection[str], end: int) -> list[LogEntry]:
        """The rows of entities below `end`, those sent twice included. Only these rows are read whole."""
        rows = snapshot.scan(filters=between(self._partition, 0, end), among=("key", entities))
        return list(PartitionLog(self._view, rows).entries())

    def draw(self, after: str, most_rows: int) -> list[str]:
        """Entities in order of their names, from the one behind `after` on and round, that have up to `most_rows` rows together; at least one."""
        names = sorted(self.rows_of)
        begin = next((i for i, name in enumerate(names) if name > after), 0)
        drawn: list[str] = []
        for name in [*names[begin:], *names[:begin]]:
            most_rows -= self.rows_of[name]
            if drawn and most_rows < 0:
                break
            drawn.append(name)
        return drawn
