"""A Delta table whose commits carry named counters, and an append that is a compare-and-swap on them.

How an append stays exactly once. delta-rs does not deduplicate: it accepts an app transaction that was written before, and even a lower
one. It refuses a commit only when another commit with the same app id came *after the version that this handle has read*. So:

1. Read the counters from the handle that will write. Never write by path: that would open a newer version than the one that was checked.
2. Compare each counter with its expected value; if one differs, raise FenceConflict and write nothing.
3. Commit the rows together with the new counters. If delta-rs refuses, another writer was faster: open the table again and go to 1.

How a merge stays exactly once. Commits become slower as the number of files grows, so the writer merges a hundred small files into one.
Of two merges of the same files delta-rs 1.6 accepts both, and then the table has every row twice. A merge can carry no app transaction and
no limit of retries, but delta-rs refuses it when the table's metadata changed after the version it read. So a merge begins with such a
change, the claim:

    writer A   claims (v8) . . . . . . . . . . . . . merges from v8: refused, the metadata changed in v9
    writer B                 reads v8, claims (v9) . merges from v9: done

1. Change the table property `tidemill.merge` (the claim). The handle is then at the version of the claim.
2. Merge. delta-rs refuses a merge, by us or by another program, that began from a version before the newest claim.
3. Open the table again, whatever happened. A failed merge only leaves more files; the writer tries again a hundred files later.

A deletion of rows begins with a claim too: a merge that had read the rows before must not bring them back.

How files go. A merge leaves the files that it replaced, for readers that hold an older version. They, and the files of writers that died
before their commit, are deleted KEPT_SECONDS later: after a merge the files that earlier ones replaced, and by `tidy` those of a table to
which nothing is written any more. So a reader may hold one version for this long; and a program that reads the folder's Parquet files
instead of the Delta table sees a row twice for no longer than this after its file was replaced.

Commits are not synced to disk: a killed process loses nothing, a power cut may lose the newest (see `torn`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from tidemill.errors import FenceConflict, OfflineUnavailable, TornTable
from tidemill.offline.torn import TRANSACTIONS, commits_folder, drop_torn_commit, explain_torn
from tidemill.runtime.logs import get_logger

log = get_logger(__name__)

FILES_PER_MERGE = 100
TARGET_FILE_BYTES = 32 << 20
KEPT_SECONDS = 3600.0
_ATTEMPTS = 10
_MERGE_CLAIM = "tidemill.merge"  # a table property that no reader uses: only its change matters
_CONFIGURATION = {"delta.logRetentionDuration": "interval 1 days", "delta.deletedFileRetentionDuration": "interval 1 days"}
_WRITER = WriterProperties(compression="ZSTD", compression_level=1)


class CountedTable:
    """A table that only grows. Its counters (app transactions) begin at 0, and no append lowers one. Safe for threads.

    `schema`: the required columns; missing ones are added. `description` is stored in a new table, for readers.
    """

    def __init__(self, uri: str, schema: pa.Schema, *, description: str, storage_options: dict[str, str] | None = None) -> None:
        self.uri = uri
        self.schema = schema
        self._description = description
        self._options = storage_options
        self._lock = threading.Lock()
        self._table: DeltaTable | None = None
        self._columns: list[str] = []
        self._files_left = 0  # how many more files until the next merge
        self._merges = True  # whether the last merge succeeded
        self._tidy_at = time.monotonic() + KEPT_SECONDS
        self._moved: dict[str, int] = {}  # counters that our last commit moved; had another writer moved them, it would have failed

    def open(self) -> None:
        """Read the newest version. Create a missing table; move a half-written commit away. Raises OfflineUnavailable, TornTable."""
        with self._lock:
            self._table = None
            self._handle()

    def counter(self, name: str) -> int:
        """A counter at the version that this handle last read or wrote."""
        with self._lock:
            return self._counter(self._handle(), name)

    def append(self, rows: pa.Table | pa.RecordBatch, moves: Mapping[str, tuple[int, int]]) -> None:
        """Add rows and move counters (name -> from, to) in one commit; a counter that does not move is only compared.

        Raises FenceConflict when a counter is not at `from`: nothing was written, or an earlier call wrote this append. Raises
        OfflineUnavailable when the store fails: the rows may have been written; open the table and look at the counters.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                table = self._handle()
                self._compare(table, moves)
                try:
                    self._write(table, rows, moves)
                except CommitFailedError as error:  # another writer was faster: read its commit and decide again
                    log.warning("another writer commits to this table", table=self.uri, reason=str(error))
                    self._table = None
                    continue
                except (DeltaError, OSError) as error:
                    self._table = None
                    self._fail("write to", error)
                self._moved = {name: end for name, (start, end) in moves.items() if end != start}
                self._files_left -= len(rows) > 0
                if self._files_left <= 0:
                    self._maintain(table)
                return
            raise self._others_were_faster()

    def delete(self, condition: str) -> int:
        """Delete the rows that fulfil a condition (SQL, as delta-rs takes it); returns how many. Their bytes go with the files: see `tidy`.

        Raises OfflineUnavailable; the rows may be deleted nevertheless.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                table = self._handle()
                try:
                    self._claim(table)
                    return int(table.delete(condition)["num_deleted_rows"])
                except CommitFailedError as error:  # a merge or another claim came between
                    log.warning("another writer changes this table", table=self.uri, reason=str(error))
                except (DeltaError, OSError) as error:
                    self._fail("delete from", error)
                finally:
                    self._table = None
            raise self._others_were_faster()

    def compact(self) -> None:
        """Merge small files now, and delete files that were replaced more than KEPT_SECONDS ago."""
        with self._lock:
            table = self._handle()
            self._maintain(table)

    @property
    def untidy(self) -> bool:
        """Whether files wait to be deleted, as far as this handle knows: `tidy` is due."""
        return time.monotonic() >= self._tidy_at

    def tidy(self, kept_seconds: float | None = None) -> None:
        """Delete the files that were replaced, or written without a commit, longer ago than KEPT_SECONDS.

        `kept_seconds`: delete those replaced longer ago than this, and leave the ones without a commit, which may be of one that runs now.
        A reader of an older version then fails with OfflineUnavailable.
        """
        with self._lock:
            try:
                self._vacuum(self._handle(), KEPT_SECONDS if kept_seconds is None else kept_seconds, full=kept_seconds is None)
            except (DeltaError, OSError) as error:
                self._fail("delete old files of", error)
            finally:
                self._table, self._tidy_at = None, time.monotonic() + KEPT_SECONDS

    def _others_were_faster(self) -> OfflineUnavailable:
        return OfflineUnavailable(f"{self.uri}: others were faster {_ATTEMPTS} times in a row", mend="run one writer per table")

    def _compare(self, table: DeltaTable, moves: Mapping[str, tuple[int, int]]) -> None:
        for name, (start, end) in moves.items():
            found = self._counter(table, name)
            if found != start:
                raise FenceConflict(f"{self.uri}: {name}", expected=start, found=found)
            if end < start:
                raise ValueError(f"{name} would move back from {start} to {end}")

    def _counter(self, table: DeltaTable, name: str) -> int:
        """From our last commit if it moved the counter: the handle would read its whole transaction log, a sixth of the writer's time."""
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
        whole = set(rows.schema.names) == set(self._columns)  # a table keeps the columns of features that were removed later
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
                self._files_left = max(FILES_PER_MERGE - self._small_files(table), 1 if self._merges else FILES_PER_MERGE)
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
        """Add the columns that the table lacks; return the names of all. Raises TornTable when a column has another type."""
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

    def _small_files(self, table: DeltaTable) -> int:
        """How many files a merge could make one of."""
        sizes = pa.table(table.get_add_actions()).column("size_bytes").to_pylist()
        return sum(size < TARGET_FILE_BYTES // 2 for size in sizes)

    def _maintain(self, table: DeltaTable) -> None:
        """Merge small files: the three steps of the module's text."""
        self._merges = False
        try:
            self._claim(table)
            table.optimize.compact(target_size=TARGET_FILE_BYTES)
            self._merges = True
            self._vacuum(table, KEPT_SECONDS, full=True)
        except (DeltaError, OSError) as error:
            log.warning("table was not compacted", table=self.uri, reason=str(error))
        self._table, self._tidy_at = None, time.monotonic() + KEPT_SECONDS

    def _vacuum(self, table: DeltaTable, kept_seconds: float, *, full: bool) -> None:
        how: dict[str, Any] = {"retention_hours": math.ceil(kept_seconds / 3600), "enforce_retention_duration": False, "full": full}
        if table.vacuum(dry_run=True, **how):  # a vacuum writes two commits, also when there is nothing to delete
            table.vacuum(dry_run=False, **how)

    def _claim(self, table: DeltaTable) -> None:
        """From now on delta-rs refuses merges from older versions. This handle is then at the claim, so a later claim refuses our merge."""
        table.alter.set_table_properties({_MERGE_CLAIM: str(table.version())}, raise_if_not_exists=False)

    def _fail(self, what: str, error: Exception) -> NoReturn:
        explain_torn(self.uri)
        raise OfflineUnavailable(
            f"cannot {what} {self.uri}: {type(error).__name__}: {error}".strip(),
            mend="look at free space, rights and reachability of TIDEMILL_OFFLINE; the writer goes on by itself",
        ) from error


def _same_type(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether Delta stores two Arrow types alike; it does not store the names of list elements."""
    if pa.types.is_list(found) and pa.types.is_list(wanted):
        return bool(found.value_type == wanted.value_type)
    return bool(found == wanted)
