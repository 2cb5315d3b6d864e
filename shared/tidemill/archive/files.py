"""Files of history as chunks of rows: Parquet, Arrow, Delta tables, CSV and JSON lines, the last two also compressed.

What a file is says its content, or else its name. A chunk knows the number of each row in the file, and for text the line it stands on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from tidemill.archive.texts import csv_chunks, json_chunks, no_text
from tidemill.errors import UnusableFile
from tidemill.routing.refusals import Refused

Ints = npt.NDArray[np.int64]

SUFFIXES = {
    "parquet": "parquet", "pq": "parquet", "arrow": "arrow", "arrows": "arrow", "feather": "arrow", "ipc": "arrow",
    "csv": "csv", "tsv": "csv", "txt": "csv", "jsonl": "json", "ndjson": "json", "json": "json",
}  # fmt: skip
COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4"}
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow"}
_BATCH_ROWS = 1 << 16
_BLOCK = 1 << 22


class Unread(NamedTuple):
    """A row that could not be read at all: its number from 0, its line from 1, and why."""

    number: int
    line: int
    error: Refused
    text: str


class Chunk(NamedTuple):
    """Some rows of a file, in its order. `share`: how much of the file has been read, 0 to 1."""

    rows: pa.RecordBatch | list[bytes]
    numbers: Ints  # of each row, from 0
    lines: Ints | None  # of each row in a text file, from 1
    unread: list[Unread]
    share: float


@dataclass(frozen=True)
class HistoryFile:
    """A file, or a folder that is a Delta table."""

    path: Path
    kind: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its bytes, in hexadecimal; of a Delta table: of its files' bytes, in the order of their names."""
        files = sorted(_delta_files(self.path)) if self.kind == "delta" else [self.path]
        digest = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        return digest.hexdigest()

    def chunks(self) -> Iterator[Chunk]:
        """Its rows. The last chunk may be empty, but names the columns, if the file does. Raises UnusableFile."""
        try:
            if self.kind in ("csv", "json"):
                compression = COMPRESSIONS.get(self.path.suffix.lower()[1:])
                make = csv_chunks if self.kind == "csv" else json_chunks
                yield from (Chunk(*parts[:3], [Unread(*row) for row in parts[3]], parts[4]) for parts in make(self.path, compression))
            else:
                yield from _numbered(*{"parquet": _parquet, "arrow": _arrow, "delta": _delta}[self.kind](self.path))
        except (pa.ArrowException, DeltaError, OSError, EOFError) as error:
            raise UnusableFile(f"{self.path} cannot be read as {self.kind}: {error}", mend="see that the file is whole") from error


def history_files(paths: Iterable[Path]) -> list[HistoryFile]:
    """The files that are named; of a folder that is no Delta table, the files in it, in the order of their paths. Raises UnusableFile."""
    found = [HistoryFile(path, _kind(path)) for path in chain.from_iterable(map(_expanded, paths))]
    if not found:
        raise UnusableFile("there are no files to load", mend="name files, or folders that have some")
    return found


def _expanded(path: Path) -> list[Path]:
    if not path.exists():
        raise UnusableFile(f"{path} does not exist", mend="name files that are there")
    if not path.is_dir() or _is_delta(path):
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
    for file in files:
        if any("=" in part for part in file.relative_to(path).parent.parts):
            raise UnusableFile(
                f"{path} is partitioned: {file.relative_to(path)} has columns in its path, not in the file",
                mend="write it as one table first, with pyarrow.dataset.dataset(folder, partitioning='hive'), or as a Delta table",
            )
    return files


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _is_delta(path: Path) -> bool:
    return (path / "_delta_log").is_dir()


def _kind(path: Path) -> str:
    if path.is_dir():
        return "delta"
    with path.open("rb") as file:
        begin = file.read(8)
    for magic, kind in _MAGIC.items():
        if begin.startswith(magic):
            return kind
    name = path.name.lower()
    suffixes = name.split(".")[1:]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    kind = SUFFIXES.get(suffixes[-1] if suffixes else "", "")
    if begin.startswith(b"PK\x03\x04"):
        raise UnusableFile(f"{path} is a spreadsheet or an archive of files", mend="save the sheet as CSV (UTF-8), or unpack it")
    if not kind or (kind == "parquet" and begin):
        named = ", ".join(f".{suffix}" for suffix in SUFFIXES)
        raise UnusableFile(f"{path} is of no known kind", mend=f"give it one of the endings {named}, and .gz after it if it is compressed")
    if kind in ("csv", "json") and not name.endswith(tuple(COMPRESSIONS)) and (flaw := no_text(begin)):
        raise UnusableFile(f"{path} is {flaw}", mend="save it as UTF-8")
    return kind


Batches = tuple[pa.Schema, Iterable[pa.RecordBatch], int | None]
"""The columns, the rows, and how many there are, if that is known."""


def _parquet(path: Path) -> Batches:
    file = pq.ParquetFile(path)
    return file.schema_arrow, file.iter_batches(_BATCH_ROWS), file.metadata.num_rows


def _arrow(path: Path) -> Batches:
    source = pa.memory_map(str(path))
    try:
        file = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        stream = pa.ipc.open_stream(source)
        return stream.schema, stream, None
    return file.schema, (file.get_batch(number) for number in range(file.num_record_batches)), None


def _delta(path: Path) -> Batches:
    dataset = DeltaTable(path).to_pyarrow_dataset()
    fragments = sorted(dataset.get_fragments(), key=lambda fragment: str(fragment.path))
    batches = chain.from_iterable(fragment.to_batches(dataset.schema, batch_size=_BATCH_ROWS) for fragment in fragments)
    return dataset.schema, batches, dataset.count_rows()


def _delta_files(path: Path) -> list[Path]:
    try:
        return [Path(uri.removeprefix("file://")) for uri in DeltaTable(path).file_uris()]
    except (DeltaError, OSError) as error:
        raise UnusableFile(f"{path} cannot be read as a Delta table: {error}", mend="see that the table is whole") from error


def _numbered(schema: pa.Schema, batches: Iterable[pa.RecordBatch], total: int | None) -> Iterator[Chunk]:
    done = 0
    for large in batches:
        for batch in _cut(large):
            numbers = _range(done, len(batch))
            done += len(batch)
            yield Chunk(batch, numbers, None, [], done / total if total else 0.0)
    yield Chunk(pa.RecordBatch.from_pylist([], schema), _range(done, 0), None, [], 1.0)


def _cut(batch: pa.RecordBatch) -> Sequence[pa.RecordBatch]:
    return [batch.slice(start, _BATCH_ROWS) for start in range(0, len(batch), _BATCH_ROWS)]


def _range(start: int, length: int) -> Ints:
    return np.arange(start, start + length, dtype=np.int64)
