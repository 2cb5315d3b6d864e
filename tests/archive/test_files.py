"""Files of each format: the same rows, with their numbers and lines; files that are damaged or odd."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyarrow import feather

from tidemill.archive.files import Chunk, history_files
from tidemill.errors import UnusableFile

ROWS = pa.table({"at": [1, 2, 3], "name": ["a", "b", "c"]})


def chunks_of(path: Path) -> list[Chunk]:
    """All chunks of one file."""
    (file,) = history_files([path])
    return list(file.chunks())


def rows_of(path: Path) -> list[dict[str, Any]]:
    """All rows of one file, texts decoded."""
    found: list[dict[str, Any]] = []
    for chunk in chunks_of(path):
        found += [json.loads(line) for line in chunk.rows] if isinstance(chunk.rows, list) else chunk.rows.to_pylist()
    return [{name: value.decode() if isinstance(value, bytes) else value for name, value in row.items()} for row in found]


def numbered(path: Path) -> list[tuple[int, int]]:
    """The number and the line of each row of a text file."""
    found: list[tuple[int, int]] = []
    for chunk in chunks_of(path):
        assert chunk.lines is not None
        found += zip(chunk.numbers.tolist(), chunk.lines.tolist(), strict=True)
    return found


def test_every_format(tmp_path: Path) -> None:
    """Parquet, both kinds of Arrow files, a Delta table, CSV, JSON lines, and the last two compressed: the same rows."""
    pq.write_table(ROWS, tmp_path / "a.parquet")
    pq.write_table(ROWS, tmp_path / "no ending")
    feather.write_feather(ROWS, str(tmp_path / "a.feather"))
    with pa.ipc.new_stream(str(tmp_path / "a.arrows"), ROWS.schema) as stream:
        stream.write_table(ROWS)
    write_deltalake(tmp_path / "delta", ROWS)
    csv = "at,name\n1,a\n2,b\n3,c\n"
    lines = "".join(json.dumps(row) + "\n" for row in ROWS.to_pylist())
    for name, text in (("a.csv", csv), ("b.txt", csv.replace(",", ";")), ("c.tsv", csv.replace(",", "\t")), ("a.jsonl", lines)):
        (tmp_path / name).write_text(text)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    files = sorted(path for path in tmp_path.iterdir())
    assert len(files) == 13
    for path in files:
        assert [{**row, "at": int(row["at"])} for row in rows_of(path)] == ROWS.to_pylist(), path


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    """Another name, the same digest; other bytes, another one. A Delta table has one too."""
    for name, text in (("a.csv", "x\n1\n"), ("b.csv", "x\n1\n"), ("c.csv", "x\n2\n")):
        (tmp_path / name).write_text(text)
    write_deltalake(tmp_path / "delta", ROWS)
    a, b, c, delta = (file.digest for file in history_files([tmp_path / name for name in ("a.csv", "b.csv", "c.csv", "delta")]))
    assert a == b != c
    assert len({a, c, delta}) == 3


def test_folders(tmp_path: Path) -> None:
    """A folder is its files, in the order of their paths, hidden ones left out; one that has columns in its paths is refused."""
    (tmp_path / "in").mkdir()
    for name in ("b.csv", "a.csv", "in/c.csv", ".hidden", "_SUCCESS"):
        (tmp_path / name).write_text("x\n1\n")
    assert [str(file.path.relative_to(tmp_path)) for file in history_files([tmp_path])] == ["a.csv", "b.csv", "in/c.csv"]
    (tmp_path / "day=1").mkdir()
    (tmp_path / "day=1/d.csv").write_text("x\n1\n")
    with pytest.raises(UnusableFile, match="partitioned"):
        history_files([tmp_path])


def test_lines_of_csv(tmp_path: Path) -> None:
    """A BOM, line breaks within quotes, mixed line ends, empty lines, rows with other numbers of cells: each row has its line."""
    text = '\ufeffat,name\r\n1,"a\nb"\n\n2,"c ""quoted"", d"\r\n3\n4,e,f\n5,""\n6,\n'
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert rows_of(tmp_path / "a.csv") == [
        {"at": "1", "name": "a\nb"},
        {"at": "2", "name": 'c "quoted", d'},
        {"at": "5", "name": ""},
        {"at": "6", "name": None},
    ]
    assert [line for _, line in numbered(tmp_path / "a.csv")] == [2, 5, 8, 9]
    unread = [row for chunk in chunks_of(tmp_path / "a.csv") for row in chunk.unread]
    assert [(row.line, row.text.strip(), row.error.message.split(": ", 1)[-1]) for row in unread] == [
        (6, "3", "the row has 1 cells, the header 2"),
        (7, "4,e,f", "the row has 3 cells, the header 2"),
    ]


@pytest.mark.slow
def test_lines_over_many_blocks(tmp_path: Path) -> None:
    """Numbers and lines hold where a file is read in many blocks, with rows of two lines and bad ones everywhere."""
    bad, lines, expected, line = 0, ["at,name"], [], 2
    for number in range(120_000):
        if number % 997 == 0:
            lines.append("x" * 100)
            bad, line = bad + 1, line + 1
        elif number % 101 == 0:
            lines.append(f'{number},"{"y" * 60}\n{number}"')
            expected.append((number, line))
            line += 2
        else:
            lines.append(f"{number},{'z' * 70}")
            expected.append((number, line))
            line += 1
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert numbered(tmp_path / "a.csv") == expected
    assert [int(row["at"]) for row in rows_of(tmp_path / "a.csv")] == [number for number, _ in expected]
    assert sum(len(chunk.unread) for chunk in chunks_of(tmp_path / "a.csv")) == bad


def test_lines_of_json(tmp_path: Path) -> None:
    """Blank lines count as lines, the last line needs no end, a line may cross a block."""
    long = json.dumps({"at": 3, "name": "x" * 5_000_000})
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"at":1}\r\n\n' + long.encode() + b'\n{"at":4}')
    assert numbered(tmp_path / "a.jsonl") == [(0, 1), (2, 3), (3, 4)]
    assert [row["at"] for row in rows_of(tmp_path / "a.jsonl")] == [1, 3, 4]


def test_only_a_header(tmp_path: Path) -> None:
    """A file without rows names its columns; a Parquet file too."""
    (tmp_path / "a.csv").write_text("at,name\n")
    pq.write_table(ROWS.slice(0, 0), tmp_path / "b.parquet")
    for name in ("a.csv", "b.parquet"):
        (chunk, *_) = chunks_of(tmp_path / name)
        assert isinstance(chunk.rows, pa.RecordBatch)
        assert (len(chunk.rows), chunk.rows.schema.names) == (0, ["at", "name"])


PARQUET = pa.BufferOutputStream()
pq.write_table(ROWS, PARQUET)
WHOLE = PARQUET.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.parquet", WHOLE[:-20], "cannot be read as parquet"),
        ("a.parquet", WHOLE[: len(WHOLE) // 2], "cannot be read as parquet"),
        ("a.parquet", b"", "cannot be read as parquet"),
        ("a.parquet", b"at,name\n", "of no known kind"),
        ("a.csv", b"", "has no header"),
        ("a.jsonl", b'[{"at": 1}]', "one JSON array"),
        ("a.csv", b"at,at\n1,2\n", "two columns named 'at'"),
        ("a.csv", "at,näme\n".encode("latin-1"), "not UTF-8"),
        ("a.csv", "at,name\n".encode("utf-16"), "UTF-16"),
        ("a.csv", b"at\0,name\n", "no text"),
        ("a.xlsx", b"PK\x03\x04junk", "spreadsheet"),
        ("a.csv.gz", b"no gzip", "cannot be read as csv"),
        ("a.csv.gz", gzip.compress(b"at,name\n" * 9999)[:-30], "cannot be read as csv"),
        ("a.bin", b"junk", "of no known kind"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """A damaged file, an empty one, one of another kind: an error that names the cause and a mend."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableFile, match=told) as error:
        chunks_of(tmp_path / name)
    assert error.value.mend


def test_no_files(tmp_path: Path) -> None:
    """A path that does not exist, and an empty folder."""
    with pytest.raises(UnusableFile, match="does not exist"):
        history_files([tmp_path / "none.csv"])
    with pytest.raises(UnusableFile, match="no files"):
        history_files([tmp_path])
