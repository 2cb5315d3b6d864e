"""Files of requests are read to the line and written whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.errors import TidemillError
from tidemill.scoring.cells import moment_of, request_value
from tidemill.scoring.tables import check_out, read_table, write_table


def test_csv_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    """Quoted line breaks, blank lines, a byte order mark and empty cells: each row knows the line on which it begins."""
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfzone,n\nnorth,1\n\n"two\nlines",\nlast,3\n')
    table = read_table(path)
    assert dict(table.columns) == {"zone": ["north", "two\nlines", "last"], "n": ["1", None, "3"]}
    assert [table.where(row) for row in range(3)] == ["t.csv:2", "t.csv:4", "t.csv:6"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "x,y\n1,2\n3\n", "a.csv:3: it has 1 cells, the first line 2"),
        ("a.csv", "x,x\n1,2\n", "it names column 'x' twice"),
        ("a.csv", "x\n", "has no rows"),
        ("a.csv", 'x\n"open\n', "cannot be read"),
        ("a.jsonl", '{"x": 1}\n\n{"x": \n', "a.jsonl:3: "),
        ("a.jsonl", "[1]\n", "a.jsonl:1: "),
        ("a.parquet", "nothing", "cannot be read"),
        ("a.txt", "x", "is none of .parquet, .csv, .jsonl"),
        ("gone/a.csv", None, "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(name: str, text: str | None, says: str, tmp_path: Path) -> None:
    """The error names the file, and the line if it is one line's fault."""
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(TidemillError, match=says.replace(".", r"\.")):
        read_table(tmp_path / name)


def test_parquet_types_become_plain_values(tmp_path: Path) -> None:
    """NaN is no value, moments are RFC 3339, decimals are numbers."""
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    columns = {
        "n": pa.array([1.5, float("nan"), None]),
        "t": pa.array([moment, None, None], pa.timestamp("ns", "UTC")),
        "naive": pa.array([moment.replace(tzinfo=None)] * 3, pa.timestamp("us")),
        "d": pa.array([Decimal("2.50")] * 3),
        "c": pa.array(["a", "b", None]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert dict(table.columns) == {
        "n": [1.5, None, None], "t": ["2026-01-31T12:00:00Z", None, None], "naive": ["2026-01-31T12:00:00Z"] * 3,
        "d": [2.5] * 3, "c": ["a", "b", None],
    }  # fmt: skip
    assert table.where(1) == "t.parquet row 2"


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A result that cannot be written leaves the file of before, and no part of itself."""
    path = tmp_path / "out.parquet"
    write_table(path, {"x": [1, 2]})
    before = path.read_bytes()
    with pytest.raises(TidemillError, match=r"column 'x' holds values of several kinds, .*; name a \.jsonl"):
        write_table(path, {"x": [1, "two"]})
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]
    assert path.read_bytes() == before
    write_table(path, {"x": [1, "two", 3]}, {1})
    assert read_table(path).columns["x"] == [1, None, 3]
    for ending in ("jsonl", "csv"):
        write_table(tmp_path / f"out.{ending}", {"x": [1, "two", None], "flag": [True, None, False]})
    assert (tmp_path / "out.jsonl").read_text() == '{"x":1,"flag":true}\n{"x":"two","flag":null}\n{"x":null,"flag":false}\n'
    assert (tmp_path / "out.csv").read_text() == "x,flag\n1,true\ntwo,\n,false\n"


def test_where_a_result_can_be_written(tmp_path: Path) -> None:
    """A wrong place is told before the work begins."""
    check_out(tmp_path / "out.csv", tmp_path / "in.csv")
    for out, says in (("out.txt", "is none of"), ("gone/out.csv", "cannot be written"), ("in.csv", "is what is read")):
        with pytest.raises(TidemillError, match=says):
            check_out(tmp_path / out, tmp_path / "in.csv")


def test_cells_become_what_requests_have() -> None:
    """Texts of a CSV file become their field's type; what cannot stays, and is refused as a request's value is."""
    given = [("5", int), ("5.0", int), ("1e3", float), ("nan", float), ("TRUE", bool), ("no", bool), ("far", float), ("7", str)]
    assert [request_value(text, kind, from_text=True) for text, kind in given] == [5, 5, 1000.0, None, True, "no", "far", "7"]
    assert [request_value(value, int, from_text=False) for value in (7.0, 7.5, "7", None)] == [7, 7.5, "7", None]


def test_moments_of_cells() -> None:
    """Whole numbers, as numbers, floats or texts, and RFC 3339; anything else says what to write."""
    ms = 1_769_860_800_000
    assert [moment_of(value) for value in (ms, float(ms), str(ms), "2026-01-31T12:00:00Z")] == [ms] * 4
    for value in (True, 1.5, [ms], "soon"):
        with pytest.raises(ValueError, match="is not a moment"):
            moment_of(value)
