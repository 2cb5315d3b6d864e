"""Text files of history, row by row: CSV as columns of bytes, JSON lines as they stand.

Each generator yields (rows, numbers, lines, rows that could not be read, share of the file), see `files.Chunk`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv

from tidemill.errors import UnusableFile
from tidemill.records import BYTE_ORDER_MARK
from tidemill.routing.refusals import Reason, Refused

Ints = npt.NDArray[np.int64]
UnreadRow = tuple[int, int, Refused, str]
Parts = tuple[Any, Ints, Ints, list[UnreadRow], float]

_BLOCK = 1 << 22
_SHOWN = 200


def no_text(begin: bytes) -> str | None:
    """What a file that begins so is instead of UTF-8 text, if that can be seen."""
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "encoded in UTF-16"
    return "no text" if b"\0" in begin else None


class _Source:
    """A file, decompressed, and how much of it has been read."""

    def __init__(self, path: Path, compression: str | None) -> None:
        self.size = max(path.stat().st_size, 1)
        self._raw = pa.OSFile(str(path))
        self.stream = pa.CompressedInputStream(self._raw, compression) if compression else self._raw

    @property
    def share(self) -> float:
        """0 to 1. A reader may be some blocks ahead."""
        return 1.0 if self._raw.closed else min(float(self._raw.tell()) / self.size, 1.0)


def csv_chunks(path: Path, compression: str | None) -> Iterator[Parts]:
    """The rows of a CSV file with a header. Every column is binary; an empty cell without quotes is null. A row without any cell is left
    out; one with too many or too few cells is a row that could not be read."""
    delimiter, names = _header(path, compression)
    rows = _CsvRows(len(names), 2 + sum(name.count("\n") for name in names))
    source = _Source(path, compression)
    reader = pv.open_csv(
        source.stream,
        read_options=pv.ReadOptions(use_threads=False, block_size=_BLOCK),
        parse_options=pv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=rows.unusable
        ),
        convert_options=pv.ConvertOptions(
            column_types={name: pa.binary() for name in names},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
            check_utf8=False,
        ),
    )
    for batch in reader:
        yield (*rows.placed(batch), source.share)
    yield (*rows.placed(pa.RecordBatch.from_pylist([], reader.schema)), 1.0)


def _header(path: Path, compression: str | None) -> tuple[str, list[str]]:
    """The delimiter and the columns' names."""
    begin = _Source(path, compression).stream.read(1 << 20)
    line = begin.removeprefix(BYTE_ORDER_MARK).split(b"\n", 1)[0]
    if not line.strip():
        raise UnusableFile(f"{path} has no header", mend="let the first line name the columns")
    counted = Counter({mark: line.count(mark.encode()) for mark in ",;\t|"})
    delimiter = max(",;\t|", key=lambda mark: counted[mark])
    options = pv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=lambda _row: "skip")
    try:
        names = pv.open_csv(pa.BufferReader(begin), parse_options=options).schema.names
    except UnicodeDecodeError:
        raise UnusableFile(f"{path} has a header that is not UTF-8", mend="save the file as UTF-8") from None
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise UnusableFile(f"{path} has two columns named {twice[0]!r}", mend="give each column a name of its own")
    return delimiter, names


class _CsvRows:
    """Gives each row of a CSV file its number and its line."""

    def __init__(self, columns: int, first_line: int) -> None:
        self._columns = columns
        self._number = 0  # of the next row
        self._line = first_line  # of the next row
        self._unusable: list[tuple[int, str, int]] = []

    def unusable(self, row: pv.InvalidRow) -> str:
        """Takes a row with another number of cells than the header; the reader goes on with the next one."""
        self._unusable.append((row.number - 2, row.text, row.actual_columns))
        return "skip"

    def placed(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Ints, Ints, list[UnreadRow]]:
        """The rows of the next batch that have any cell, their numbers and lines, and the unusable rows up to its end."""
        last = not len(batch)
        candidates = np.arange(self._number, self._number + len(batch) + len(self._unusable), dtype=np.int64)
        numbers = candidates[~np.isin(candidates, [number for number, *_ in self._unusable])][: len(batch)]
        end = candidates[-1] + 1 if last and len(candidates) else (numbers[-1] + 1 if len(numbers) else self._number)
        passed = [row for row in self._unusable if row[0] < end]
        self._unusable = self._unusable[len(passed) :]
        breaks = np.zeros(end - self._number, np.int64)
        breaks[numbers - self._number] = _line_breaks(batch)
        for number, text, _ in passed:
            breaks[number - self._number] = text.count("\n")
        lines = self._line + np.arange(len(breaks)) + np.concatenate([[0], np.cumsum(breaks)[:-1]])[: len(breaks)]
        unread = [(number, int(lines[number - self._number]), self._refused(found, text), text[:_SHOWN]) for number, text, found in passed]
        lines_of_rows = lines[numbers - self._number]
        self._line += len(breaks) + int(breaks.sum())
        self._number = int(end)
        some = _has_cell(batch)
        return batch.filter(pa.array(some)), numbers[some], lines_of_rows[some], unread

    def _refused(self, found: int, text: str) -> Refused:
        said = f"the row has {found} cells, the header {self._columns}"
        return Refused(Reason.NOT_OBJECT, said + ("; is a quote left open?" if text.count('"') % 2 else ""))


def _line_breaks(batch: pa.RecordBatch) -> Ints:
    """How many line breaks lie within the cells of each row."""
    found = np.zeros(len(batch), np.int64)
    for column in batch.columns:
        content = column.buffers()[2]
        if content is not None and (np.frombuffer(content, np.uint8) == ord("\n")).any():
            found += pc.fill_null(pc.count_substring(column, "\n"), 0).to_numpy(zero_copy_only=False)
    return found


def _has_cell(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(batch), bool)
    for column in batch.columns:
        if not column.null_count:
            return np.ones(len(batch), bool)
        found |= column.is_valid().to_numpy(zero_copy_only=False)
    return found


def json_chunks(path: Path, compression: str | None) -> Iterator[Parts]:
    """The lines of a file with one JSON object a line. Blank lines are left out."""
    source, rest, number = _Source(path, compression), b"", 0
    while True:
        block = source.stream.read(_BLOCK)
        if not number and not rest and (block := block.removeprefix(BYTE_ORDER_MARK)).lstrip()[:1] == b"[":
            raise UnusableFile(f"{path} is one JSON array", mend=f"write one object a line: jq -c '.[]' {path.name}")
        *lines, rest = (rest + block).split(b"\n")
        if not block:
            lines, rest = [rest], b""
        numbers = np.array([number + place for place, line in enumerate(lines) if line and not line.isspace()], np.int64)
        yield [line for line in lines if line and not line.isspace()], numbers, numbers + 1, [], source.share
        number += len(lines)
        if not block:
            return
