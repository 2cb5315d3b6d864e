"""`tidemill load`: history from files into the archive."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.target import need, offline_target
from tidemill.durations import parse_ms
from tidemill.errors import TidemillError, UnknownEvent
from tidemill.timestamps import UNITS, rfc3339

if TYPE_CHECKING:
    from rich.progress import Progress

    from tidemill.archive.file_rules import FileRules
    from tidemill.archive.files import HistoryFile
    from tidemill.archive.load import Load, LoadReport, Watch
    from tidemill.archive.taking import RefusedRow

SHOWN = 10


def load(
    event: Annotated[str, typer.Argument(help="The event whose history it is.")],
    files: Annotated[list[Path], typer.Argument(help="Parquet, Arrow, CSV, JSON lines (.gz too), Delta tables, or folders of files.")],
    rename: Annotated[list[str] | None, typer.Option(help="COLUMN=FIELD, where a column has another name; may be repeated.")] = None,
    known: Annotated[str | None, typer.Option(help="The column that says when an event became known.")] = None,
    known_after: Annotated[str | None, typer.Option(help='An event became known so long after its time, e.g. "5m".')] = None,
    timezone: Annotated[str, typer.Option(help="Of times without an offset, e.g. America/New_York.")] = "UTC",
    unit: Annotated[str | None, typer.Option(help="Of times that are numbers: d (days), s, ms, us or ns.", show_default="ms")] = None,
    null: Annotated[list[str] | None, typer.Option(help="A text that means that there is no value, e.g. NULL; may be repeated.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Load nothing of a file if one of its rows is refused.")] = False,
    refused: Annotated[Path | None, typer.Option(help="Write all refused rows into this CSV file.")] = None,
) -> None:
    """Load history into the archive, from which training sets are made. Services may run meanwhile.

    A file's columns are the event's fields; what is not declared is kept aside. A row that cannot be an event is refused and reported; the
    others are loaded. A file is loaded once, whatever its name; a run that was killed is taken up by the next one.
    """
    need("deltalake", "lake")
    from tidemill.archive.files import history_files
    from tidemill.archive.load import Load

    reading = _reading(rename or [], known, known_after, timezone, unit, null or [])
    project, store = offline_target()
    if event not in project.events:
        raise UnknownEvent(event, list(project.events))
    found = history_files(files)
    with _refusals(refused) as notes:
        job = Load(project, project.events[event], store, reading, notes.add)
        job.check(found)
        with _bar() as bar:
            if strict:
                _refuse(job, found, bar, notes)
            reports = [job.run(file, _watch(bar, file, "loading")) for file in found]
        for report in reports:
            _tell(report, job)
        notes.tell()
        if any(report.nothing_taken for report in reports):
            raise TidemillError(
                "all rows of a file are refused, and nothing of it is loaded",
                mend="mend the file, or the event's declaration (then: tidemill apply), and load it again",
            )
        if any(report.loaded for report in reports):
            _say(
                "training sets, labels and `tidemill verify` see this history from now on. Served values have it after `tidemill apply`, which fills views anew with it (the first `tidemill up` does so too)."
            )


class Refusals:
    """Refused rows: the first ones are shown, all are written to a file if one is named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = path.open("w", newline="") if path else None
        self._writer = csv.writer(self._file) if self._file else None
        self.begin()

    def begin(self) -> None:
        """Forget all rows."""
        self._first: list[tuple[HistoryFile, RefusedRow]] = []
        self.count = 0
        if self._file and self._writer:
            self._file.seek(0)
            self._file.truncate()
            self._writer.writerow(["file", "row", "line", "column", "value", "reason", "detail"])

    def add(self, file: HistoryFile, row: RefusedRow) -> None:
        """A row was refused."""
        self.count += 1
        if len(self._first) < SHOWN:
            self._first.append((file, row))
        if self._writer:
            line = "" if row.line is None else row.line
            self._writer.writerow([file.path, row.number + 1, line, row.column, row.value, row.reason, row.detail])

    def tell(self) -> None:
        """Show the first rows."""
        if not self.count:
            return
        table = Table("where", "column", "value", "reason")
        for file, row in self._first:
            where = f"{file.path.name}:{row.line}" if row.line else f"{file.path.name} row {row.number + 1}"
            table.add_row(*map(Text, (where, row.column, repr(row.value), f"{row.reason}: {row.detail}")))
        console.print(table)
        if self._path:
            _say(f"all {self.count:,} refused rows are in {self._path}")
        elif self.count > len(self._first):
            _say(f"{self.count - len(self._first):,} more were refused; --refused FILE.csv writes all of them")

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


@contextmanager
def _refusals(path: Path | None) -> Iterator[Refusals]:
    notes = Refusals(path)
    try:
        yield notes
    finally:
        notes.close()


def _reading(rename: list[str], known: str | None, known_after: str | None, zone: str, unit: str | None, nulls: list[str]) -> FileRules:
    from tidemill.archive.file_rules import FileRules
    from tidemill.archive.times import TimeRule

    if known and known_after:
        raise TidemillError("--known and --known-after both say when events became known", mend="give one of them")
    if unit is not None and unit not in UNITS:
        raise TidemillError(f"--unit {unit} is no unit", mend=f"write one of {', '.join(UNITS)}")
    try:
        after_ms = 0 if known_after is None else parse_ms(known_after)
    except ValueError as error:
        raise TidemillError(f"--known-after: {error}") from None
    return FileRules(_renamed(rename), known, after_ms, TimeRule(zone, unit), tuple(nulls))


def _renamed(pairs: list[str]) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for pair in pairs:
        column, equals, name = pair.rpartition("=")
        if not (equals and column and name):
            raise TidemillError(f"--rename {pair} is not COLUMN=FIELD", mend="write the column's name, =, and the event's field")
        if name in renamed:
            raise TidemillError(f"--rename gives {name} two columns, {renamed[name]} and {column}", mend="leave one of them out")
        renamed[name] = column
    return renamed


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    speed = TextColumn("{task.fields[rows]:,} rows, {task.fields[pace]:,.0f}/s")
    return Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), speed, TimeRemainingColumn(), console=console)


def _watch(bar: Progress, file: HistoryFile, what: str) -> Watch:
    task = bar.add_task(f"{what} {file.path.name}", total=1.0, rows=0, pace=0.0)

    def watch(rows: int, share: float) -> None:
        elapsed = bar.tasks[task].elapsed or 0.0
        bar.update(task, completed=share, rows=rows, pace=rows / elapsed if elapsed else 0.0)

    return watch


def _refuse(job: Load, files: list[HistoryFile], bar: Progress, notes: Refusals) -> None:
    """Raises TidemillError when any row is refused."""
    for file in files:
        job.refusals(file, _watch(bar, file, "checking"))
    if notes.count:
        bar.stop()
        notes.tell()
        raise TidemillError(
            f"nothing was loaded: {notes.count:,} rows are refused", mend="mend the rows, or load the others without --strict"
        )


def _tell(report: LoadReport, job: Load) -> None:
    name = report.file.path
    if report.done_ms:
        _say(f"{name}: already loaded, {job.in_archive(report.file):,} events on {rfc3339(report.done_ms)}")
        return
    before = f"; the first {report.before:,} rows were done before" if report.before else ""
    _say(f"{name}: {report.loaded:,} events loaded{before}")
    if report.copies:
        _say(f"  {report.copies:,} rows passed over: the archive has an event with their id and time")
    if report.no_event:
        _say(f"  {report.no_event:,} rows passed over: deletes and other changes that are no event")
    if report.refused:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.refused.most_common())
        console.print(Text(f"  {report.refused.total():,} rows refused: {reasons}", style="yellow"))
        if not report.nothing_taken:
            _say("  a file is loaded once: to have these rows too, mend them and load them as a file of their own")


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(load)
