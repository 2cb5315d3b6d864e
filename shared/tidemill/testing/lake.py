"""The twin of the offline store: Delta tables in memory that behave like delta-rs, under the append, snapshot and scan of production.

Experiments with delta-rs 1.6 showed: it does not deduplicate app transactions, and accepts even a lower version of one; a commit conflicts
only when a commit after the handle's version has one of the same app ids; an accepted commit refreshes the handle. Needs the extra `lake`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
from deltalake.exceptions import CommitFailedError
from pyarrow import dataset

from tidemill.errors import UnknownTable
from tidemill.offline import delta
from tidemill.offline.delta import CountedTable
from tidemill.offline.store import OfflineStore, Snapshot


@dataclass(frozen=True)
class Commit:
    """One version of a table: the rows that it added (None: none), the counters that it moved, and all counters after it."""

    rows: Any
    moves: Mapping[str, int]
    counters: Mapping[str, int]


class MemoryTable:
    """The commits of a table, its columns and its description."""

    def __init__(self, schema: pa.Schema, description: str = "") -> None:
        self.schema = schema
        self.description = description
        self.commits: list[Commit] = [Commit(None, {}, {})]

    @property
    def version(self) -> int:
        """The newest version."""
        return len(self.commits) - 1

    def commit(self, base: int, rows: Any, moves: Mapping[str, int]) -> None:
        """Add a version after the newest. Raises CommitFailedError when a version after `base` moved one of the same counters."""
        self.look(base, moves)
        self.commits.append(Commit(rows, moves, {**self.commits[-1].counters, **moves}))

    def look(self, base: int, moves: Mapping[str, int]) -> None:
        """Raise CommitFailedError when a version after `base` moved one of the same counters."""
        if any(moves.keys() & commit.moves.keys() for commit in self.commits[base + 1 :]):
            raise CommitFailedError("Concurrent transaction failed")


class TableMetadata(NamedTuple):
    """The metadata of a table, as a `DeltaTable` shows it."""

    description: str


class Columns(NamedTuple):
    """The columns of a table, as a `DeltaTable` shows its schema."""

    fields: list[Any]

    def to_arrow(self) -> pa.Schema:
        """The same as Arrow's schema."""
        return pa.schema(self.fields)


class Handle:
    """The twin of a `DeltaTable`: a table at one version, the newest when the handle was made, or the one that the handle wrote last."""

    def __init__(self, table: MemoryTable) -> None:
        self.table = table
        self.base = table.version
        self.optimize = self.alter = self
        self.table_uri = "memory://"

    def version(self) -> int:
        """The handle's version."""
        return self.base

    def transaction_version(self, name: str) -> int | None:
        """A counter at the handle's version."""
        return self.table.commits[self.base].counters.get(name)

    def metadata(self) -> TableMetadata:
        """The table's description."""
        return TableMetadata(self.table.description)

    def schema(self) -> Columns:
        """The columns that the table has now."""
        return Columns(list(self.table.schema))

    def count(self) -> int:
        """How many rows the handle's version has."""
        return len(self._rows())

    def to_pyarrow_dataset(self) -> dataset.Dataset:
        """All rows of the handle's version."""
        return dataset.dataset(self._rows())

    def commit(self, rows: Any, moves: Mapping[str, int]) -> None:
        """Add a version, and move the handle to it."""
        self.table.commit(self.base, rows, moves)
        self.base = self.table.version

    def set_table_properties(self, properties: dict[str, str], **options: Any) -> None:
        """Does nothing: properties never conflict with an append."""

    def compact(self, **options: Any) -> None:
        """Add a version without rows or counters."""
        self.table.commits.append(replace(self.table.commits[-1], rows=None, moves={}))

    def vacuum(self, **options: Any) -> None:
        """Does nothing: memory has no files to remove."""

    def _rows(self) -> pa.Table:
        added: Sequence[Any] = [commit.rows for commit in self.table.commits[: self.base + 1] if commit.rows is not None]
        return pa.concat_tables([self.table.schema.empty_table(), *added], promote_options="default")


class MemoryCountedTable(CountedTable):
    """The append of production with its checks, on a table in memory."""

    def __init__(self, tables: dict[str, MemoryTable], name: str, schema: pa.Schema, description: str) -> None:
        super().__init__(f"memory://{name}", schema, description=description)
        self._tables = tables
        self._name = name

    def _load(self) -> Any:
        return Handle(self._tables.setdefault(self._name, MemoryTable(self.schema, self._description)))

    def _small_files(self, table: Any) -> int:
        return int(table.version()) % delta.FILES_PER_MERGE  # so that a writer that restarts often merges too

    def _fit(self, table: Any) -> list[str]:
        table.table.schema = pa.unify_schemas([table.table.schema, self.schema])
        return list(table.table.schema.names)

    def _write(self, table: Any, rows: pa.Table | pa.RecordBatch, moves: Mapping[str, tuple[int, int]]) -> None:
        whole = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        table.commit(whole, {name: end for name, (start, end) in moves.items() if end != start})


class MemoryLake(OfflineStore):
    """An offline store whose tables are in memory: only the process that wrote them can read them."""

    def __init__(self) -> None:
        super().__init__("memory://lake")
        self.tables: dict[str, MemoryTable] = {}

    def counted_table(self, name: str, schema: pa.Schema, description: str = "") -> CountedTable:
        """A table with its own counters. The first `open` creates it."""
        return MemoryCountedTable(self.tables, name, schema, description)

    def snapshot(self, name: str) -> Snapshot:
        """The newest state of a table. Raises UnknownTable."""
        if name not in self.tables:
            raise UnknownTable(name)
        return Snapshot(name, Handle(self.tables[name]))  # type: ignore[arg-type]  # a snapshot uses only what a Handle has
