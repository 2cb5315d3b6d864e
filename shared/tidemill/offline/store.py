"""The offline store: Delta tables below one folder or object-store URL, written exactly once, read as consistent snapshots.

    store = OfflineStore("/data/offline")                # or OfflineStore.load() from TIDEMILL_OFFLINE
    snapshot = store.snapshot("views/origin_delays.p4")
    snapshot.positions                                   # {0: 1204, 1: 998, ...}: next offset per partition at this version
    table = snapshot.scan(["partition", "offset", "time"], pc.field("partition") == 0)

    shops = store.topic_table(view_table(project, view))    # the one writer of this table
    shops.append(rows, {(topic, 0): (1204, 1300)})

Below the root: `views/<view>.p<partitions>`, `events/<event>`, `predictions`, `shadows`, `results` (tables), `models/` and `untracked/` (files).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from operator import or_
from typing import TYPE_CHECKING, NoReturn, Protocol, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow import fs

from tidemill.errors import DoubledRows, OfflineUnavailable, UnknownTable
from tidemill.offline.delta import CountedTable
from tidemill.offline.torn import explain_torn
from tidemill.runtime.settings import OfflineSettings

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

_CLOUD_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_")


class OfflineStore:
    """The tables below `url`. For an object store, `storage_options` default to the environment's AWS_, AZURE_ and GOOGLE_ variables."""

    def __init__(self, url: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None) -> None:
        self.url = os.fspath(url).rstrip("/")
        remote = "://" in self.url and not self.url.startswith("file://")
        found = {name: value for name, value in os.environ.items() if name.startswith(_CLOUD_VARIABLES)} if remote else {}
        self.storage_options: dict[str, str] | None = dict(storage_options or found) or None

    @classmethod
    def load(cls) -> Self:
        """The store that the environment names (TIDEMILL_OFFLINE). Raises SettingsError."""
        return cls(OfflineSettings.load().root)

    def uri(self, name: str) -> str:
        """The location of a table."""
        return f"{self.url}/{name}"

    def topic_table(self, table: TableOfTopic) -> TopicTable:
        """The table that follows a topic, to append to. Opening it creates the table if it is missing."""
        about = msgspec.json.encode(_About(table.topic, table.partitions)).decode()
        return TopicTable(table, self.counted_table(table.name, table.schema, about))

    def counted_table(self, name: str, schema: pa.Schema, description: str = "") -> CountedTable:
        """A table with counters that is no mirror, to append to. Opening it creates the table if it is missing."""
        return CountedTable(self.uri(name), schema, description=description, storage_options=self.storage_options)

    def drop(self, name: str) -> None:
        """Delete a table with all its files; nothing happens when there is none. Raises OfflineUnavailable."""
        files, path = fs.FileSystem.from_uri(self.uri(name)) if "://" in self.url else (fs.LocalFileSystem(), self.uri(name))
        try:
            files.delete_dir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OfflineUnavailable(f"table {name!r} cannot be deleted: {error}", mend="check rights and reachability") from error

    def find(self, name: str) -> Snapshot | None:
        """The newest state of a table; None when there is no such table. Raises TornTable, OfflineUnavailable."""
        try:
            return self.snapshot(name)
        except UnknownTable:
            return None

    def snapshot(self, name: str) -> Snapshot:
        """The newest state of a table. Raises UnknownTable, TornTable, OfflineUnavailable."""
        uri = self.uri(name)
        try:
            return Snapshot(name, DeltaTable(uri, storage_options=self.storage_options))
        except TableNotFoundError:
            raise UnknownTable(name) from None
        except (DeltaError, OSError) as error:
            _fail(f"cannot open {uri}", uri, error)

    def scan(self, name: str, columns: Sequence[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
        """`snapshot(name).scan(columns, filters)`."""
        return self.snapshot(name).scan(columns, filters)

    def predictions(self, columns: Sequence[str] | None = None, ids: Collection[str] | None = None, *, shadows: bool = False) -> pa.Table:
        """Predictions (`ids`: only these), each once: of several records with one id the first counts (lowest partition, then offset).

        A client that repeats a request with the same id adds a record to the topic, but no prediction. `shadows`: what each shadow would have
        answered instead.
        """
        key = ["id", "model", "version"] if shadows else ["id"]
        wanted = None if columns is None else list(dict.fromkeys([*key, *columns]))
        among = None if ids is None else ("id", ids)
        table = self.snapshot("shadows" if shadows else "predictions").scan(wanted, pc.field("time").is_valid(), among=among)
        places = table.select(key).append_column("row", pa.array(np.arange(len(table))))
        first = places.group_by(key).aggregate([("row", "min")])["row_min"].to_numpy()
        return table.take(np.sort(first)).select(columns or table.column_names)


Among = tuple[str, Collection[str]]


class TableOfTopic(Protocol):
    """A table that follows a topic: its name, its columns, and the topic with its partitions."""

    @property
    def name(self) -> str:
        """Its folder below the root of the offline store."""

    @property
    def topic(self) -> str:
        """The topic."""

    @property
    def partitions(self) -> int:
        """The partitions of the topic."""

    @property
    def schema(self) -> pa.Schema:
        """All columns that its writer fills."""


class _About(msgspec.Struct, frozen=True):
    """The description stored in a table: the topic that it mirrors."""

    topic: str
    partitions: int


def counter_name(topic: str, partition: int) -> str:
    """The app transaction that holds the next offset of a partition."""
    return f"{topic}-{partition}"


class Snapshot:
    """One version of a table; later commits do not change its answers."""

    def __init__(self, name: str, table: DeltaTable) -> None:
        self.name = name
        self.version: int = table.version()
        self._table = table

    @cached_property
    def positions(self) -> dict[int, int]:
        """Next offset of each partition of the mirrored topic: this snapshot has all records below it, once. Only for mirrors of topics.

        Raises DoubledRows when there are more rows than records below these offsets, TornTable, OfflineUnavailable.
        """
        about = msgspec.json.decode(self._table.metadata().description or "", type=_About)
        positions = {p: self.counter(counter_name(about.topic, p)) for p in range(about.partitions)}
        held, records = self._table.count(), sum(positions.values())
        if held > records:
            raise DoubledRows(self.name, held, records)
        return positions

    @cached_property
    def _dataset(self) -> Dataset:
        """All its files with their bounds. To make it takes time for every file."""
        return self._table.to_pyarrow_dataset()

    @property
    def columns(self) -> list[str]:
        """Its columns: those of all declarations that its writer has seen."""
        return [field.name for field in self._table.schema().fields]

    @property
    def schema(self) -> pa.Schema:
        """Its columns with their types."""
        return pa.schema(self._table.schema().to_arrow())

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return int(self._table.count())

    def batches(self, columns: Sequence[str], filters: pc.Expression) -> Iterator[pa.RecordBatch]:
        """The rows that a filter takes, a part at a time, in no order; it reads little ahead, so they take little memory. Raises OfflineUnavailable."""
        try:
            scanner = self._dataset.scanner(columns=list(columns), filter=filters, batch_readahead=1, fragment_readahead=1)
            yield from scanner.to_batches()
        except (DeltaError, OSError, pa.ArrowException) as error:
            _fail(f"cannot read table {self.name!r} at version {self.version}", self._table.table_uri, error)

    def any(self, filters: pc.Expression) -> bool:
        """Whether it has a row that the filter takes. Raises OfflineUnavailable."""
        return any(batch.num_rows for batch in self.batches([], filters))

    def counter(self, name: str) -> int:
        """A counter of the table at this version (0: never set). Raises TornTable, OfflineUnavailable."""
        try:
            return self._table.transaction_version(name) or 0
        except (DeltaError, OSError) as error:  # each call reads the newest commits, and one may be torn since the table was opened
            _fail(f"cannot read the log of table {self.name!r} at version {self.version}", self._table.table_uri, error)

    def proofs_before(self, positions: Mapping[int, int]) -> dict[int, int]:
        """The checksum of the last row below each position (partition -> next offset); partitions without rows are left out."""
        last = [(pc.field("partition") == p) & (pc.field("offset") == position - 1) for p, position in positions.items() if position]
        if not last:
            return {}
        rows = self.scan(["partition", "proof"], reduce(or_, last))
        return dict(zip(rows["partition"].to_pylist(), rows["proof"].to_pylist(), strict=True))

    def scan(
        self,
        columns: Sequence[str] | None = None,
        filters: pc.Expression | None = None,
        *,
        among: Among | None = None,
        order: Sequence[str] | None = None,
    ) -> pa.Table:
        """Rows in order of (partition, offset), or of `seq` for results. Files whose bounds the filter excludes are not read.

        `columns` None: all; `among`: a text column and its allowed values, applied batch by batch; `order`: one or two columns of whole
        numbers to sort by, or none. Raises OfflineUnavailable when data files are missing or damaged.
        """
        try:
            dataset = self._dataset
            if order is None:
                order = ["partition", "offset"] if "offset" in dataset.schema.names else ["seq"]
            wanted = list(columns if columns is not None else dataset.schema.names)
            column, values = among or ("", ())
            read = list(dict.fromkeys([*wanted, *order, *([column] if among else [])]))
            if among is None:
                table = dataset.to_table(columns=read, filter=filters)
            else:  # not in the dataset's filter: pyarrow cannot compare the text type of the bounds in files that delta-rs rewrote
                allowed = pa.array(sorted(values), pa.string())
                batches = dataset.scanner(columns=read, filter=filters).to_batches()
                picked = [batch.filter(pc.is_in(batch[column], value_set=allowed)) for batch in batches]
                table = pa.Table.from_batches(picked, pa.schema([dataset.schema.field(name) for name in read]))
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise OfflineUnavailable(
                f"cannot read table {self.name!r} at version {self.version}: {error}",
                mend="if data files are gone, move the table away: its writer makes it again from Kafka",
            ) from error
        return _sorted(table, order).select(wanted)


def _fail(what: str, uri: str, error: Exception) -> NoReturn:
    """Raises TornTable when the reason is a half-written commit, else OfflineUnavailable."""
    explain_torn(uri)
    raise OfflineUnavailable(f"{what}: {error}", mend="check TIDEMILL_OFFLINE, rights and reachability") from error


def _sorted(table: pa.Table, order: Sequence[str]) -> pa.Table:
    """Rows sorted by one or two whole-number columns; sorted rows cost one pass."""
    if len(table) < 2 or not order:
        return table
    columns = [table[name].to_numpy() for name in order]
    steps = [np.diff(column) for column in columns]
    falls = steps[0] < 0 if len(order) == 1 else (steps[0] < 0) | ((steps[0] == 0) & (steps[1] < 0))
    return table.take(np.lexsort(columns[::-1])) if falls.any() else table


class TopicTable:
    """The table of a topic, for its one writer. Positions are Kafka's next offsets."""

    def __init__(self, spec: TableOfTopic, table: CountedTable) -> None:
        self.spec = spec
        self._table = table

    def open(self) -> None:
        """Create or read the table; move away a commit that a power cut left half written. Raises OfflineUnavailable, TornTable."""
        self._table.open()

    def append(self, rows: pa.Table | pa.RecordBatch, moves: Mapping[tuple[str, int], tuple[int, int]]) -> None:
        """Add rows in one commit. `moves`: (topic, partition) -> (first offset, next offset) of the rows.

        Raises FenceConflict (nothing was written) when the rows do not start at the table's position, OfflineUnavailable when the store
        fails (they may have been written: open the table and read the positions).
        """
        self._table.append(rows, {counter_name(*target): move for target, move in moves.items()})

    def compact(self) -> None:
        """Merge small files. `append` does so when there are a hundred."""
        self._table.compact()

    @property
    def untidy(self) -> bool:
        """Whether `tidy` is due."""
        return self._table.untidy

    def tidy(self) -> None:
        """Delete the files that no reader needs any more: see `CountedTable.tidy`. Raises OfflineUnavailable."""
        self._table.tidy()

    def position(self, partition: int) -> int:
        """The next offset of a partition, at the version that was last read or written."""
        return self._table.counter(counter_name(self.spec.topic, partition))

    def delete(self, condition: str) -> int:
        """Delete rows: see `CountedTable.delete`. Raises OfflineUnavailable."""
        return self._table.delete(condition)
