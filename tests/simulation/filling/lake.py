"""The archive on a disk that is slow and fails: tables whose commits are compared by the product's `CountedTable`, and whose rows are kept as
they come. Reading them in the order of known is modelled (`slices`), and so is looking at their columns: no event lacks a field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from tests.simulation.filling.project import Paid
from tests.simulation.network import Process

from tidemill.archive.columns import ID, KNOWN, LOADED, OFFSET, PARTITION, TIME, TOPIC
from tidemill.declarations import FeatureView
from tidemill.errors import UnknownTable
from tidemill.offline.delta import CountedTable
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.testing.lake import Handle, MemoryCountedTable, MemoryLake, MemoryTable

SLICE_EVENTS = 25
_MS = pa.timestamp("ms", tz="UTC")


class Archived(NamedTuple):
    """A row of the archive, in the order in which it is read."""

    known_ms: int
    topic: str
    partition: int
    offset: int
    event: Paid


class Lake(MemoryLake):
    """The offline store as one process has it; `tables` are those of all. `commit_seconds`: how long a commit takes at most; `faults`: share
    of commits that fail, half of them after they took effect."""

    def __init__(self, process: Process, tables: dict[str, MemoryTable]) -> None:
        super().__init__()
        self.tables = tables
        self.process = process
        self.commit_seconds = 0.05
        self.faults = 0.0

    def counted_table(self, name: str, schema: pa.Schema, description: str = "") -> CountedTable:
        """A table, to append to."""
        return SlowTable(self, name, schema, description)

    def snapshot(self, name: str) -> Snapshot:
        """See `OfflineStore.snapshot`."""
        if name not in self.tables:
            raise UnknownTable(name)
        return Snapshot(name, RowsHandle(self.tables[name]))  # type: ignore[arg-type]  # what else it has nobody asks for


class RowsHandle(Handle):
    """A handle of a table whose rows are `Archived`."""

    def count(self) -> int:
        """How many rows its version has."""
        return len(self.rows())

    def rows(self) -> list[Archived]:
        """The rows of its version."""
        return rows_of(self.table, self.base)


class SlowTable(MemoryCountedTable):
    """A table whose writer can be killed, or be overtaken, before and after each commit."""

    def __init__(self, lake: Lake, name: str, schema: pa.Schema, description: str) -> None:
        super().__init__(lake.tables, name, schema, description)
        self._lake = lake

    def _load(self) -> Any:
        self._lake.process.busy(0.02 * self._lake.process.draw.random())
        return super()._load()

    def _write(self, table: Any, rows: Any, moves: Mapping[str, tuple[int, int]]) -> None:
        lake, process = self._lake, self._lake.process
        process.busy(lake.commit_seconds * process.draw.random())
        fate = process.draw.random()
        if fate < lake.faults / 2:
            raise OSError("No space left on device")
        kept = _archived(rows) if isinstance(rows, pa.Table) else rows
        table.commit(kept, {name: end for name, (start, end) in moves.items() if end != start})
        process.busy(0.02 * process.draw.random())
        if fate < lake.faults:
            raise OSError("the answer was lost")


def rows_of(table: MemoryTable, version: int | None = None) -> list[Archived]:
    """The rows of a version of a table; None: of the newest."""
    commits = table.commits if version is None else table.commits[: version + 1]
    return [row for commit in commits for row in commit.rows or ()]


def slices(store: OfflineStore, view: FeatureView, snapshot: Snapshot) -> Iterator[pa.Table]:
    """See `archived.slices`."""
    parts = unfinished(snapshot)
    rows = sorted((row for row in _rows(snapshot) if row.topic not in parts), key=lambda row: row[:4])
    names = dict.fromkeys([*view.key.fields, *view.value_fields])
    kinds = {"at": pa.int64(), "card": pa.string(), "amount": pa.float64(), "number": pa.int64()}
    for first in range(0, len(rows), SLICE_EVENTS):
        part = rows[first : first + SLICE_EVENTS]
        own = {
            KNOWN: pa.array([row.known_ms for row in part], pa.int64()),
            TIME: pa.array([row.event.at for row in part], pa.int64()),
            ID: pa.nulls(len(part), pa.string()),
        }
        yield pa.table(own | {name: pa.array([getattr(row.event, name) for row in part], kinds[name]) for name in names})


def loads(snapshot: Snapshot) -> set[str]:
    """See `reading.loads`."""
    topics = {row.topic for row in _rows(snapshot) if row.topic.startswith(LOADED)}
    return {topic.removeprefix(LOADED) for topic in topics if snapshot.counter(f"{topic}:done")}


def unfinished(snapshot: Snapshot) -> dict[str, int]:
    """See `reading.unfinished`."""
    topics = Counter(row.topic for row in _rows(snapshot) if row.topic.startswith(LOADED))
    return {topic: rows for topic, rows in topics.items() if not snapshot.counter(f"{topic}:done")}


def _rows(snapshot: Snapshot) -> list[Archived]:
    rows: list[Archived] = snapshot._table.rows()  # type: ignore[attr-defined]  # see RowsHandle
    return rows


def _archived(rows: pa.Table) -> Sequence[Archived]:
    known = rows[KNOWN].cast(_MS).cast(pa.int64()).to_pylist()
    places = (rows[name].to_pylist() for name in (TOPIC, PARTITION, OFFSET))
    events = map(Paid, *(rows[name].to_pylist() for name in Paid.__struct_fields__))
    return list(map(Archived, known, *places, events))
