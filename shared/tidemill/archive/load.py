"""History from files into the archive: each file once, whatever happens meanwhile.

A file is known by the digest of its content. Its rows are appended commit by commit. Each commit carries rows and, as a counter of the
table, how many rows of the file are done (`load:<digest>`); the first one also by which rules they were read (`load:<digest>:rules`), the
last one when the file was done (`load:<digest>:done`). So a run that was killed is taken up by the next one, and a file that is done is not
loaded again; one of which every row was refused is. The archive's other writers have counters of their own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import KNOWN, LOADED, OFFSET, TOPIC, event_folder, table_schema
from tidemill.archive.copies import copies
from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import Chunk, HistoryFile
from tidemill.archive.taking import RefusedRow, Taken, Taker
from tidemill.clock import now_ms
from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.errors import FenceConflict, TidemillError, UnusableFile
from tidemill.offline.delta import CountedTable
from tidemill.offline.store import OfflineStore
from tidemill.timestamps import rfc3339

COMMIT_ROWS = 1 << 18
COMMIT_BYTES = 64 << 20

Watch = Callable[[int, float], None]
"""Is told how many rows of a file are done, and which share of it."""


@dataclass
class LoadReport:
    """What became of one file. `loaded`: events that this run wrote; `before`: rows that earlier runs had done; `copies`: rows that were
    passed over, since the archive has their event; `no_event`: rows that are no event, such as deletes of a database; `done_ms`: when an earlier run was done with it."""

    file: HistoryFile
    loaded: int = 0
    before: int = 0
    copies: int = 0
    no_event: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    done_ms: int = 0

    @property
    def nothing_taken(self) -> bool:
        """Whether rows were refused and no run has taken any."""
        return bool(self.refused) and not (self.before or self.loaded or self.copies or self.no_event or self.done_ms)


class Load:
    """Loads files as events of one declaration. `refused` is called with each refused row."""

    def __init__(
        self, project: Project, event: Event, store: OfflineStore, reading: FileRules, refused: Callable[[HistoryFile, RefusedRow], None]
    ) -> None:
        self._project, self._event, self._store, self._reading, self._refused = project, event, store, reading, refused
        self._folder = event_folder(event.name)
        self._rules = int.from_bytes(hashlib.sha256(reading.written()).digest()[:6], "big") | 1
        self._now_ms = now_ms()

    def check(self, files: Sequence[HistoryFile]) -> None:
        """Look at the first rows of each file. Raises UnusableFile when columns are missing or cannot have the declared types."""
        taker = self._taker(None, "")
        for file in files:
            chunk = next(file.chunks(), None)
            try:
                if chunk is not None:
                    taker.check(chunk)
            except UnusableFile as error:
                raise UnusableFile(f"{file.path}: {error.message}", mend=error.mend) from None

    def refusals(self, file: HistoryFile, watch: Watch) -> Counter[str]:
        """Read a file without writing anything, and count what is refused. Raises UnusableFile."""
        report = LoadReport(file)
        for _ in self._taken(report, None, "", watch):
            pass
        return report.refused

    def run(self, file: HistoryFile, watch: Watch) -> LoadReport:
        """Load a file, or what earlier runs left of it. Raises UnusableFile, OfflineUnavailable, TornTable."""
        name = _counter(file)
        table = self._open()
        report = LoadReport(file, before=table.counter(name), done_ms=table.counter(f"{name}:done"))
        rules = table.counter(f"{name}:rules")
        if rules not in (0, self._rules):
            when = f" on {rfc3339(report.done_ms)}" if report.done_ms else ""
            raise UnusableFile(
                f"{file.path}: this content was loaded with other options{when}",
                mend="give the same options; with others its events would be in the archive twice",
            )
        if not report.done_ms:
            moves = {} if rules else {f"{name}:rules": (0, self._rules)}
            self._append(report, name, table, moves, self._taken(report, table.schema, name, watch))
        return report

    def in_archive(self, file: HistoryFile) -> int:
        """How many events of a file the archive has."""
        return len(self._store.snapshot(self._folder).scan([OFFSET], among=(TOPIC, {_counter(file)}), order=()))

    def _open(self) -> CountedTable:
        found = self._store.find(self._folder)
        table = self._store.counted_table(self._folder, table_schema(self._event, found and found.schema))
        table.open()
        return table

    def _taker(self, found: pa.Schema | None, topic: str) -> Taker:
        return Taker(self._project, self._event, self._reading, found, topic, self._now_ms)

    def _taken(self, report: LoadReport, found: pa.Schema | None, topic: str, watch: Watch) -> Iterator[tuple[Chunk, Taken]]:
        """The whole file, also what is done already, so that the report is whole."""
        taker, done = self._taker(found, topic), 0
        for chunk in report.file.chunks():
            taken = taker.take(chunk)
            report.no_event += taken.passed
            for row in taken.refused:
                report.refused[row.reason] += 1
                self._refused(report.file, row)
            yield chunk, taken
            done = max(done, _end(chunk))
            watch(done, chunk.share)

    def _append(
        self, report: LoadReport, name: str, table: CountedTable, moves: dict[str, tuple[int, int]], taken: Iterator[tuple[Chunk, Taken]]
    ) -> None:
        done = seen = report.before
        waiting: list[pa.Table] = []
        for chunk, found in taken:
            waiting.append(found.rows.filter(pc.greater_equal(found.rows[OFFSET], done)))
            seen = max(seen, _end(chunk))
            if sum(map(len, waiting)) >= COMMIT_ROWS or sum(rows.nbytes for rows in waiting) >= COMMIT_BYTES:
                self._commit(report, table, waiting, {**moves, name: (done, seen)})
                done, moves, waiting = seen, {}, []
        if report.nothing_taken and not any(map(len, waiting)):
            return  # the file may be right, and the declaration or the options wrong: the next run reads it again
        rows = waiting or [table.schema.empty_table()]
        self._commit(report, table, rows, {**moves, name: (done, seen), f"{name}:done": (0, now_ms())})

    def _commit(self, report: LoadReport, table: CountedTable, waiting: list[pa.Table], moves: dict[str, tuple[int, int]]) -> None:
        rows = pa.concat_tables(waiting)
        copied = copies(self._store, self._folder, rows)
        report.copies += int(copied.sum())
        rows = rows.filter(pa.array(~copied)).sort_by([(KNOWN, "ascending"), (OFFSET, "ascending")])
        try:
            table.append(rows, moves)
        except FenceConflict as error:
            raise TidemillError(
                f"{report.file.path}: another `tidemill load` is loading this content", mend="let it end, then run this again"
            ) from error
        report.loaded += len(rows)


def _counter(file: HistoryFile) -> str:
    return f"{LOADED}{file.digest[:16]}"


def _end(chunk: Chunk) -> int:
    """The number after the last row of a chunk, rows that could not be read included."""
    last = [int(chunk.numbers[-1])] if len(chunk.numbers) else []
    return max([-1, *last, *(row.number for row in chunk.unread)]) + 1
