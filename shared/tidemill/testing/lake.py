"""The twin of the offline store: Delta tables in memory, as delta-rs treats them, beneath the very append, snapshot and scan of production.

What was found of delta-rs 1.6: an app transaction is not deduplicated, and even a lower one is accepted; a commit conflicts only when one
that landed after the handle's version carries an app id of its own; an accepted commit refreshes the handle. Needs the extra `lake`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
from deltalake.exceptions import CommitFailedError
from pyarrow import dataset

from tidemill.errors import UnknownTable
from tidemill.offline.delta import CountedTable
from tidemill.offline.store import OfflineStore, Snapshot


@dataclass(frozen=True)
class Commit:
    """One version: the rows it added (None: none), the counters it moved, and all counters after it."""

    rows: Any
    moves: Mapping[str, int]
    counters: Mapping[str, int]


class MemoryTable:
    """The commits of a table, and the names and types of its columns."""

    def __init__(self, schema: pa.Schema, description: str = "") -> None:
        self.schema = schema
        self.description = description
        self.commits: list[Commit] = [Commit(None, {}, {})]

    @property
    def version(self) -> int:
        """The newest version."""
        return len(self.commits) - 1

    def commit(self, base: int, rows: Any, moves: Mapping[str, int]) -> None:
        """Add a version on top of the newest. Raises CommitFailedError when one after `base` moved a counter of these."""
        self.look(base, moves)
        self.commits.append(Commit(rows, moves, {**self.commits[-1].counters, **moves}))

    def look(self, base: int, moves: Mapping[str, int]) -> None:
        """Raise CommitFailedError when a version after `base` moved a counter of these."""
        if any(moves.keys() & commit.moves.keys() for commit in self.commits[base + 1 :]):
            raise CommitFailedError("Concurrent transaction failed")


class Metadata(NamedTuple):
    """What is known of a table beside its rows."""

    description: str


class Columns(NamedTuple):
    """The columns of a table, as a `DeltaTable` shows its schema."""

    fields: list[Any]


class Handle:
    """A `DeltaTable`: a table at the version that was the newest when the handle was made, or that it wrote itself."""

    def __init__(self, table: MemoryTable) -> None:
        self.table = table
        self.base = table.version
        self.optimize = self.alter = self
        self.table_uri = "memory://"

    def version(self) -> int:
        """The handle's version."""
        return self.base

    def transaction_version(self, name: str) -> int | None:
        """A counter as of the handle's version."""
        return self.table.commits[self.base].counters.get(name)

    def metadata(self) -> Metadata:
        """The table's description."""
        return Metadata(self.table.description)

    def schema(self) -> Columns:
        """The columns it has now."""
        return Columns(list(self.table.schema))

    def count(self) -> int:
        """How many rows there are."""
        return len(self._rows())

    def to_pyarrow_dataset(self) -> dataset.Dataset:
        """All rows."""
        return dataset.dataset(self._rows())

    def commit(self, rows: Any, moves: Mapping[str, int]) -> None:
        """Add a version, and stand at it."""
        self.table.commit(self.base, rows, moves)
        self.base = self.table.version

    def set_table_properties(self, properties: dict[str, str], **options: Any) -> None:
        """Nothing that an append conflicts with."""

    def compact(self, **options: Any) -> None:
        """A commit without rows or counters."""
        self.table.commits.append(replace(self.table.commits[-1], rows=None, moves={}))

    def vacuum(self, **options: Any) -> None:
        """Nothing that anybody needs."""

    def _rows(self) -> pa.Table:
        added: Sequence[Any] = [commit.rows for commit in self.table.commits[: self.base + 1] if commit.rows is not None]
        return pa.concat_tables([self.table.schema.empty_table(), *added], promote_options="default")


class MemoryCountedTable(CountedTable):
    """The append of production, and its checks, on a table of a lake in memory."""

    def __init__(self, tables: dict[str, MemoryTable], name: str, schema: pa.Schema, description: str) -> None:
        super().__init__(f"memory://{name}", schema, description=description)
        self._tables = tables
        self._name = name

    def _load(self) -> Any:
        return Handle(self._tables.setdefault(self._name, MemoryTable(self.schema, self._description)))

    def _fit(self, table: Any) -> list[str]:
        table.table.schema = pa.unify_schemas([table.table.schema, self.schema])
        return list(table.table.schema.names)

    def _write(self, table: Any, rows: pa.Table | pa.RecordBatch, moves: Mapping[str, tuple[int, int]]) -> None:
        whole = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        table.commit(whole, {name: end for name, (start, end) in moves.items() if end != start})


class MemoryLake(OfflineStore):
    """An offline store whose tables are in memory: one process reads what the same process wrote."""

    def __init__(self) -> None:
        super().__init__("memory://lake")
        self.tables: dict[str, MemoryTable] = {}

    def counted_table(self, name: str, schema: pa.Schema, description: str = "") -> CountedTable:
        """A table of one's own with counters. It is created when it is first opened."""
        return MemoryCountedTable(self.tables, name, schema, description)

    def snapshot(self, name: str) -> Snapshot:
        """The newest state of a table. Raises UnknownTable."""
        if name not in self.tables:
            raise UnknownTable(name)
        return Snapshot(name, Handle(self.tables[name]))  # type: ignore[arg-type]  # a DeltaTable as far as a snapshot asks
