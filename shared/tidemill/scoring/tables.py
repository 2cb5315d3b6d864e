"""Tables of requests as files: Parquet, CSV, and JSON lines. A result is written whole or not at all."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.errors import TidemillError
from tidemill.timestamps import rfc3339

ENDINGS = (".parquet", ".csv", ".jsonl")
_MOST_BYTES = 1 << 20  # of a cell of a CSV file


@dataclass(frozen=True)
class RequestTable:
    """`columns`: the values by name, None where there is none; `lines`: where each row stands in its file, from 1; `texts`: whether every
    value is a text, as in a CSV file."""

    path: Path
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    texts: bool

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """A row for a person: its line, or in a Parquet file its number."""
        return f"{self.path.name}{f' row {self.lines[row]}' if self.path.suffix == '.parquet' else f':{self.lines[row]}'}"


def read_table(path: Path) -> RequestTable:
    """The rows of a file. Raises TidemillError, which names the line that cannot be read."""
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}
    if path.suffix not in readers:
        raise TidemillError(f"{path} is none of {', '.join(ENDINGS)}", mend="give a file of one of these kinds")
    try:
        table = readers[path.suffix](path)
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise TidemillError(f"{path} cannot be read: {error}", mend=f"give a file of rows, as its name ({path.suffix}) says") from error
    if not len(table):
        raise TidemillError(f"{path} has no rows", mend="give a file with a row for each request")
    return table


def check_out(path: Path, *others: Path) -> None:
    """Raises TidemillError when a result cannot be written there: before the work, not after it."""
    if path.suffix not in ENDINGS:
        raise TidemillError(f"{path} is none of {', '.join(ENDINGS)}", mend="name a file of one of these kinds")
    if any(path.resolve() == other.resolve() for other in others):
        raise TidemillError(f"{path} is what is read", mend="name another file to write")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise TidemillError(f"{path} cannot be written", mend="name a file in a folder that exists and is yours")


def write_table(path: Path, columns: Mapping[str, Sequence[Any]], refused: Collection[int] = ()) -> None:
    """Writes columns of one length as the file's name says. Whoever reads the file sees all of it, or what was there before.

    `refused`: rows whose values may be of another kind than their column, which Parquet then has as null.
    """
    with _whole(path) as part:
        if path.suffix == ".parquet":
            pq.write_table(pa.table({name: _arrow(name, values, refused) for name, values in columns.items()}), part)
        elif path.suffix == ".csv":
            with part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*(map(_cell, values) for values in columns.values()), strict=True))
        else:
            encode = msgspec.json.Encoder(enc_hook=str).encode
            with part.open("wb") as file:
                for row in zip(*columns.values(), strict=True):
                    file.write(encode(dict(zip(columns, row, strict=True))) + b"\n")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write in the place of `path`: it takes that name once it is whole and on the disk."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise TidemillError(f"{path} cannot be written: {error}", mend="name a file in a folder that exists and is yours") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _parquet(path: Path) -> RequestTable:
    table = pq.read_table(path)
    columns = {name: [_plain(value) for value in _milliseconds(table[name]).to_pylist()] for name in table.column_names}
    return RequestTable(path, columns, range(1, len(table) + 1), texts=False)


def _milliseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Moments may be finer than Python's; what is asked for are milliseconds."""
    return column.cast(pa.timestamp("ms", column.type.tz), safe=False) if pa.types.is_timestamp(column.type) else column


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime | date):
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
        return rfc3339(round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))
    return float(value) if isinstance(value, Decimal) else value


def _csv(path: Path) -> RequestTable:
    """An empty cell is no value."""
    csv.field_size_limit(_MOST_BYTES)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        names = next(reader, [])
        rows, lines = list[list[str]](), list[int]()
        line = reader.line_num
        for row in reader:
            begins, line = line + 1, reader.line_num
            if not row:
                continue
            if len(row) != len(names):
                raise _unread(path, begins, f"it has {len(row)} cells, the first line {len(names)}")
            rows.append(row)
            lines.append(begins)
    _check_names(path, names)
    columns = {name: [row[i] or None for row in rows] for i, name in enumerate(names)}
    return RequestTable(path, columns, lines, texts=True)


def _json_lines(path: Path) -> RequestTable:
    """A name that a line lacks has no value."""
    rows, lines = list[dict[str, Any]](), list[int]()
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    rows.append(decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise _unread(path, number, str(error)) from None
                lines.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return RequestTable(path, {name: [row.get(name) for row in rows] for name in names}, lines, texts=False)


def _check_names(path: Path, names: Sequence[str]) -> None:
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise _unread(path, 1, f"it names column {twice[0]!r} twice")


def _unread(path: Path, line: int, why: str) -> TidemillError:
    return TidemillError(f"{path}:{line}: {why}", mend="correct the line; nothing was written")


def _arrow(name: str, values: Sequence[Any], refused: Collection[int]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        if refused:
            return _arrow(name, [None if row in refused else value for row, value in enumerate(values)], ())
        raise TidemillError(
            f"column {name!r} holds values of several kinds, which Parquet cannot: {error}", mend="name a .jsonl file to write"
        ) from error


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return msgspec.json.encode(value, enc_hook=str).decode() if isinstance(value, dict | list) else value
