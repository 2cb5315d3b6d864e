"""A Delta table whose commits carry named counters, and an append that is a compare-and-swap on them.

delta-rs does not deduplicate: an app transaction that was written before is accepted again, and even a lower one. It refuses a commit
only when another commit with the same app id landed *after the state this handle has read*. So the counters are read from the very handle that
then writes: what was checked is what the commit is based on. Never write by path.

The handle and the list of live files make commits slower as they grow: every hundred commits small files are merged and the handle is
opened anew. Of two merges of the same files delta-rs 1.6 accepts both, and every row is there twice; it takes neither an app transaction nor a
limit of retries with a merge, but refuses it when the table's metadata changed since it was read. So each merge is preceded by such a change.
Nothing is synced to disk: a killed process loses nothing, a power cut may (see `torn`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NoReturn

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from tidemill.errors import FenceConflict, OfflineUnavailable, TornTable
from tidemill.offline.torn import TRANSACTIONS, commits_folder, drop_torn_commit, explain_torn
from tidemill.runtime.logs import get_logger

log = get_logger(__name__)

COMMITS_PER_COMPACTION = 100
COMPACTIONS_PER_VACUUM = 20
TARGET_FILE_BYTES = 32 << 20
_ATTEMPTS = 10
_MERGE_CLAIM = "tidemill.merge"  # a table property that nobody reads: what counts is that it changes
_CONFIGURATION = {"delta.logRetentionDuration": "interval 1 days", "delta.deletedFileRetentionDuration": "interval 1 days"}
_WRITER = WriterProperties(compression="ZSTD", compression_level=1)


class CountedTable:
    """A table that only grows. Its counters (app transactions) are 0 until they are set, and no append lowers one. Safe for threads.

    `schema`: columns that must be there; missing ones are added. `description` is kept with a new table, for readers.
    """

    def __init__(self, uri: str, schema: pa.Schema, *, description: str, storage_options: dict[str, str] | None = None) -> None:
        self.uri = uri
        self.schema = schema
        self._description = description
        self._options = storage_options
        self._lock = threading.Lock()
        self._table: DeltaTable | None = None
        self._columns: list[str] = []
        self._moved: dict[str, int] = {}  # counters that the last commit moved: another writer's would have refused it

    def open(self) -> None:
        """Read the newest state; create the table when there is none, take out a half-written commit. Raises OfflineUnavailable, TornTable."""
        with self._lock:
            self._table = None
            self._handle()

    def counter(self, name: str) -> int:
        """A counter as of the state last read or written by this handle."""
        with self._lock:
            return self._counter(self._handle(), name)

    def append(self, rows: pa.Table | pa.RecordBatch, moves: Mapping[str, tuple[int, int]]) -> None:
        """Add rows and move counters (name -> from, to) in one commit; a counter that does not move is only compared.

        Raises FenceConflict when a counter is not at `from`: nothing was written, or this very append was written before. Raises
        OfflineUnavailable when the store fails: it may have been written; open and look at the counters.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                table = self._handle()
                self._compare(table, moves)
                try:
                    self._write(table, rows, moves)
                except CommitFailedError as error:  # another writer was faster: read its commit and decide anew
                    log.warning("another writer commits to this table", table=self.uri, reason=str(error))
                    self._table = None
                    continue
                except (DeltaError, OSError) as error:
                    self._table = None
                    self._fail("write to", error)
                self._moved = {name: end for name, (start, end) in moves.items() if end != start}
                if table.version() % COMMITS_PER_COMPACTION == 0:  # the table's own count: writers that never live long compact too
                    self._maintain(table)
                return
            raise OfflineUnavailable(f"{self.uri}: others were faster {_ATTEMPTS} times in a row", mend="run one writer per table")

    def compact(self) -> None:
        """Merge small files now, and drop files that no reader of the last day can need."""
        with self._lock:
            table = self._handle()
            self._maintain(table)

    def _compare(self, table: DeltaTable, moves: Mapping[str, tuple[int, int]]) -> None:
        for name, (start, end) in moves.items():
            found = self._counter(table, name)
            if found != start:
                raise FenceConflict(f"{self.uri}: {name}", expected=start, found=found)
            if end < start:
                raise ValueError(f"{name} would move back from {start} to {end}")

    def _counter(self, table: DeltaTable, name: str) -> int:
        """Asking the handle reads all of its log: a sixth of the writer's time."""
        moved = self._moved.get(name)
        if moved is not None:
            return moved
        try:
            return table.transaction_version(name) or 0
        except (DeltaError, OSError) as error:
            self._table = None
            self._fail("read the log of", error)

    def _write(self, table: DeltaTable, rows: pa.Table | pa.RecordBatch, moves: Mapping[str, tuple[int, int]]) -> None:
        transactions = [Transaction(name, end) for name, (start, end) in moves.items() if end != start]
        properties = CommitProperties(app_transactions=transactions, custom_metadata={TRANSACTIONS: str(len(transactions))})
        whole = set(rows.schema.names) == set(self._columns)  # a table keeps the columns of features that were dropped since
        write_deltalake(
            table,
            rows.select(self._columns) if whole else rows,
            mode="append",
            commit_properties=properties,
            writer_properties=_WRITER,
            schema_mode=None if whole else "merge",
        )

    def _handle(self) -> DeltaTable:
        if self._table is None:
            try:
                drop_torn_commit(self.uri)
                table = self._load()
                self._columns, self._moved = self._fit(table), {}
                self._table = table
            except (DeltaError, OSError) as error:
                self._fail("open", error)
        return self._table

    def _load(self) -> DeltaTable:
        try:
            return DeltaTable(self.uri, storage_options=self._options)
        except TableNotFoundError:
            log.info("creating table", table=self.uri)
            if (folder := commits_folder(self.uri)) is not None:
                folder.parent.mkdir(parents=True, exist_ok=True)
            return DeltaTable.create(
                self.uri,
                Schema.from_arrow(self.schema),
                mode="ignore",
                description=self._description,
                configuration=_CONFIGURATION,
                storage_options=self._options,
            )

    def _fit(self, table: DeltaTable) -> list[str]:
        """Add the columns that the table lacks and return all names. Raises TornTable when one has another type."""
        found = pa.schema(table.schema().to_arrow())
        wrong = [field for field in self.schema if field.name in found.names and not _same_type(found.field(field.name).type, field.type)]
        if wrong:
            names = ", ".join(f"{field.name} ({found.field(field.name).type} there, {field.type} now)" for field in wrong)
            raise TornTable(
                f"{self.uri} has columns of another type: {names}",
                mend="give the changed view another name, or move the table away and let it be written again from Kafka",
            )
        missing = [field for field in self.schema if field.name not in found.names]
        if missing:
            log.info("adding columns", table=self.uri, columns=[field.name for field in missing])
            table.alter.add_columns(Schema.from_arrow(pa.schema(missing)).fields)
        return [*found.names, *(field.name for field in missing)]

    def _maintain(self, table: DeltaTable) -> None:
        """Merge small files and open anew. A failure only leaves more files: it is told and tried again in a hundred commits."""
        version = table.version()
        try:
            self._claim(table)
            table.optimize.compact(target_size=TARGET_FILE_BYTES)
            if version % (COMMITS_PER_COMPACTION * COMPACTIONS_PER_VACUUM) == 0:
                table.vacuum(dry_run=False)
        except (DeltaError, OSError) as error:
            log.warning("table was not compacted", table=self.uri, reason=str(error))
        self._table = None

    def _claim(self, table: DeltaTable) -> None:
        """Refuse whatever merges this table from an older state. The handle is at the claim then, so that a later claim refuses its own merge."""
        table.alter.set_table_properties({_MERGE_CLAIM: str(table.version())}, raise_if_not_exists=False)

    def _fail(self, what: str, error: Exception) -> NoReturn:
        explain_torn(self.uri)
        raise OfflineUnavailable(
            f"cannot {what} {self.uri}: {type(error).__name__}: {error}".strip(),
            mend="look at free space, rights and reachability of TIDEMILL_OFFLINE; the writer goes on by itself",
        ) from error


def _same_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether two Arrow types are stored alike; Delta does not keep the names of list elements."""
    if pa.types.is_list(found) and pa.types.is_list(wanted):
        return bool(found.value_type == wanted.value_type)
    return bool(found == wanted)
