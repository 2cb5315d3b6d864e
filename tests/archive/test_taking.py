"""Rows of files beside the live path: the same event, in a file and as JSON, is archived alike or refused for the same reason."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archive.trips import NOW_MS, Sent

from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import history_files
from tidemill.archive.reading import read_events
from tidemill.archive.rows import event_table
from tidemill.archive.taking import RefusedRow, Taker
from tidemill.archive.times import TimeRule
from tidemill.declarations import Event, Field
from tidemill.declarations.project import Project
from tidemill.errors import UnusableFile
from tidemill.offline.store import OfflineStore

FIELDS = {
    "at": int,
    "id": str,
    "whole": int | None,
    "must": int,
    "real": float | None,
    "text": str | None,
    "flag": bool | None,
    "Text": str | None,
}
EVENT = Event("odd", FIELDS, time="at", id="id")
WORDS = Event("words", {"at": str, "id": int | None, "text": str}, time="at", id="id", extra="refuse")
PROJECT = Project("p", {"odd": EVENT, "words": WORDS}, {}, {})
DIFFERENT = {"_topic", "_partition"}

TIMES = st.integers(NOW_MS - 10**9, NOW_MS) | st.sampled_from([-1, 0, NOW_MS + 3_600_000, NOW_MS + 3_600_001, 2**60])
IDS = st.text(min_size=1, max_size=4) | st.sampled_from(["", "x" * 1024, "x" * 1025, "ä" * 600])
INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5)
REALS = st.floats()
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "at": TIMES,
    "id": IDS,
    "whole": st.none() | INTS,
    "must": st.none() | INTS,
    "real": st.none() | REALS,
    "text": st.none() | st.text(max_size=6),
    "flag": st.none() | st.booleans(),
    "Text": st.none() | st.text(max_size=3),
    "more": st.none() | st.text(max_size=5),
    "odd one": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
}
ROWS = st.lists(st.fixed_dictionaries(CELLS), min_size=1, max_size=8)


def loaded(path: Path, event: Event, reading: FileRules | None = None) -> tuple[list[dict[str, Any]], list[RefusedRow]]:
    """The rows that a file becomes, and those that it does not."""
    taker = Taker(PROJECT, event, reading or FileRules(), None, "load:x", NOW_MS)
    (file,) = history_files([path])
    taken = [taker.take(chunk) for chunk in file.chunks()]
    return [row for each in taken for row in each.rows.to_pylist()], [row for each in taken for row in each.refused]


def live(event: Event, values: list[bytes], knowns: list[Any]) -> dict[int, dict[str, Any]]:
    """The rows that the archive's writer makes of the same events, by their number."""
    table = event_table(PROJECT, event)
    records = [
        Sent(number, value, headers=() if known is None else [("ce_recordedtime", str(known).encode())])
        for number, (value, known) in enumerate(zip(values, knowns, strict=True))
    ]
    return {row["_offset"]: row for row in table.rows(0, records).to_pylist()}


def assert_same(found: list[dict[str, Any]], refused: list[RefusedRow], expected: dict[int, dict[str, Any]], total: int) -> None:
    """Equal rows, bit by bit; ids by content where the event has none; every other row refused once."""
    assert [row["_offset"] for row in found] == sorted(expected), refused
    assert sorted([*(row.number for row in refused), *expected]) == list(range(total))
    for row in found:
        other = expected[row["_offset"]]
        assert (row["_id"] == other["_id"]) or (other["_id"] is None and len(row["_id"]) >= 32)
        for name in row.keys() - DIFFERENT - {"_id", "_extra"}:
            assert repr(row[name]) == repr(other[name]), name
        assert json.loads(row["_extra"] or "{}") == {
            name: value for name, value in json.loads(other["_extra"] or "{}").items() if value is not None
        }


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder of this file's own."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(rows=ROWS)
def test_typed_columns(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Parquet: every kind of value at the edge of its type, keys, times, NaN and nulls."""
    types = {"at": pa.int64(), "whole": pa.int64(), "must": pa.int64(), "real": pa.float64(), "flag": pa.bool_(), "odd one": pa.float64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in CELLS])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "rows.parquet")
    found, refused = loaded(folder / "rows.parquet", EVENT)
    expected = live(EVENT, [json.dumps(row).encode() for row in rows], [row["at"] for row in rows])
    assert_same(found, refused, expected, len(rows))


NUMBERS = st.sampled_from(
    ["1", "-5", "007", "300.0", "300.5", "1e3", " 12 ", "+4", ".5", "5.", "1,000", "nan", "NULL", "1e400", "9" * 20, ""]
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    rows=ROWS, numbers=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=8, max_size=8), odd=st.sampled_from(["t", "FALSE", "yes", "0", " 1"])
)
def test_texts(folder: Path, rows: list[dict[str, Any]], numbers: list[tuple[str, str]], odd: str) -> None:
    """CSV: a text is the value that it states; quotes, separators and line breaks stand in cells."""
    with (folder / "rows.csv").open("w", newline="") as file:
        file.write(",".join(CELLS) + "\n")
        for number, row in enumerate(rows):
            cells = dict(row)
            if number % 2:
                cells |= dict(zip(("whole", "real"), numbers[number], strict=True)) | {"flag": odd}
            file.write(",".join(_cell(value) for value in map(cells.get, CELLS)) + "\n")
            row |= {"whole": _number(cells["whole"]), "real": _number(cells["real"]), "flag": _truth(cells["flag"])}
            row["odd one"] = None if row["odd one"] is None else repr(row["odd one"])
    found, refused = loaded(folder / "rows.csv", EVENT)
    expected = live(EVENT, [json.dumps(row).encode() for row in rows], [row["at"] for row in rows])
    assert_same(found, refused, expected, len(rows))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return '"' + value.replace('"', '""') + '"' if isinstance(value, str) else repr(value)


def _number(cell: Any) -> Any:
    """What a cell of a number is, said in plain Python; a text that is no number stays one."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    if not text or text == "nan":
        return math.nan if text else None
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return cell


def _truth(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    return {"t": True, "1": True, "false": False, "0": False}.get(cell.strip().lower(), cell)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["2023-11-14T22:00:00Z", "2023-11-14 22:00:00.123456+05:30", "2023-11-14T25:00:00Z", "2023-02-30", "soon", ""]),
            st.none() | INTS,
            st.none() | st.text(max_size=3),
            st.none() | st.sampled_from(["u", ""]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_times_as_text_and_undeclared_columns(folder: Path, rows: list[tuple[str, int | None, str | None, str | None]]) -> None:
    """An event with RFC 3339 times keeps their text; one that allows no undeclared field is refused with any."""
    columns = dict(zip(["at", "id", "text", "more"], map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(
        pa.table(columns, pa.schema([("at", pa.string()), ("id", pa.int64()), ("text", pa.string()), ("more", pa.string())])),
        folder / "w.parquet",
    )
    found, refused = loaded(folder / "w.parquet", WORDS)
    events = [{name: value for name, value in zip(columns, row, strict=True) if name != "more" or value is not None} for row in rows]
    knowns = [row[0] if row[0][:10] == "2023-11-14" and "25" not in row[0] else None for row in rows]
    assert_same(found, refused, live(WORDS, [json.dumps(event).encode() for event in events], knowns), len(rows))


NEW_YORK = FileRules(times=TimeRule("America/New_York"))


@pytest.mark.parametrize(
    ("cell", "reading", "expected"),
    [
        ("2023-11-14T22:13:20Z", FileRules(), NOW_MS),
        ("2023-11-14 22:13:20", FileRules(), NOW_MS),
        ("2023-11-14 22:13", FileRules(), NOW_MS - 20_000),
        ("2023-11-14", FileRules(), NOW_MS - 80_000_000),
        ("2023-11-14 17:13:20", NEW_YORK, NOW_MS),
        ("2023-11-14T22:13:20.0019Z", NEW_YORK, NOW_MS + 1),
        ("2023-11-05 01:30:00", NEW_YORK, 1_699_162_200_000),  # comes twice; the first
        ("2023-03-12 02:30:00", NEW_YORK, None),  # never comes
        ("2023-03-12 02:30", NEW_YORK, None),
        ("2023-11-14 22:13:20+0000", NEW_YORK, NOW_MS),
        ("2023-11-14 22:13:20 UTC", NEW_YORK, NOW_MS),
        ("1700000000", FileRules(times=TimeRule(unit="s")), NOW_MS),
        ("1700000000.25", FileRules(times=TimeRule(unit="s")), NOW_MS + 250),
        ("1700000000000999", FileRules(times=TimeRule(unit="us")), NOW_MS),
        ("1700000000000999999", FileRules(times=TimeRule(unit="ns")), NOW_MS),
        ("19675", FileRules(times=TimeRule(unit="d")), 1_699_920_000_000),
        ("19675.5", FileRules(times=TimeRule(unit="d")), 1_699_963_200_000),
        ("1700000000000.5", FileRules(), None),
        ("2024-01-01T00:00:00Z", FileRules(), None),  # ahead of now
        ("2016-12-31T23:59:60Z", FileRules(), None),  # a second that clocks of computers do not have
        ("2016-12-31 23:59:60", FileRules(), None),
        ("9999-12-31T23:59:59.999Z", FileRules(), None),
        ("9999-12-31T23:59:59-05:00", FileRules(), None),  # in the year 10000
    ],
)
def test_times(folder: Path, cell: str, reading: FileRules, expected: int | None) -> None:
    """Each way to write a time, as a text and, where the same is meant, as a text of an event with times as text."""
    (folder / "t.csv").write_text(f"at,id,must,text\n{cell},1,1,a\n")
    for event in (EVENT, WORDS):
        if event is WORDS:
            (folder / "t.csv").write_text(f"at,id,text\n{cell},1,a\n")
        found, refused = loaded(folder / "t.csv", event, reading)
        assert [row["_time"].timestamp() * 1000 for row in found] == ([] if expected is None else [expected])
        assert len(refused) == (expected is None)
        assert all(row.line == 2 and row.value == cell and row.column == "at" for row in refused)


def test_arrow_times(folder: Path) -> None:
    """Timestamps of every unit, with and without a zone, and dates."""
    units = [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "Asia/Kolkata"), pa.timestamp("ns")]
    for kind in units:
        column = pa.array([NOW_MS // 1000], pa.timestamp("s")).cast(pa.timestamp(kind.unit)).cast(kind)
        pq.write_table(pa.table({"at": column, "id": ["a"], "must": [1]}), folder / "a.parquet")
        ((row,), _) = loaded(folder / "a.parquet", EVENT)
        assert row["at"] == NOW_MS, kind
    local = pa.array([NOW_MS - 5 * 3_600_000], pa.timestamp("ms"))
    pq.write_table(pa.table({"at": local, "id": ["a"], "must": [1]}), folder / "a.parquet")
    ((row,), _) = loaded(folder / "a.parquet", EVENT, NEW_YORK)
    assert row["at"] == NOW_MS
    never = pa.array([1_678_588_200_000, -20_000_000, None], pa.timestamp("ms"))
    pq.write_table(pa.table({"at": never, "id": ["a"] * 3, "must": [1] * 3}), folder / "a.parquet")
    found, refused = loaded(folder / "a.parquet", EVENT, NEW_YORK)
    assert (found, [row.reason for row in refused]) == ([], ["bad_time", "bad_time", "wrong_type"])


def test_known(folder: Path) -> None:
    """Known at its time, or so long after it, or when a column says; a row that does not say it is refused."""
    (folder / "k.csv").write_text(f"at,id,must,seen\n{NOW_MS - 9000},a,1,{NOW_MS}\n{NOW_MS - 9000},b,1,\n{NOW_MS - 9000},c,1,soon\n")

    def knowns(reading: FileRules) -> list[float]:
        return [row["_known"].timestamp() * 1000 - NOW_MS for row in loaded(folder / "k.csv", EVENT, reading)[0]]

    assert knowns(FileRules()) == [-9000.0] * 3
    assert knowns(FileRules(known_after_ms=5000)) == [-4000.0] * 3
    assert knowns(FileRules(known_after_ms=3_700_000)) == []  # later than now
    found, refused = loaded(folder / "k.csv", EVENT, FileRules(known="seen"))
    assert [row["id"] for row in found] == ["a"]
    assert [(row.line, row.column, row.reason) for row in refused] == [(3, "seen", "missing_field"), (4, "seen", "bad_time")]


def test_renamed_columns_and_nulls(folder: Path) -> None:
    """A renamed column is the field, in CSV and in JSON lines; a text that means null is null."""
    reading = FileRules(renamed={"at": "time", "must": "n"}, nulls=("NULL",))
    (folder / "r.csv").write_text(f"time,id,n,text,more\n{NOW_MS},a,1,NULL,NULL\n{NOW_MS},b,x,,\n")
    (folder / "r.jsonl").write_text(
        json.dumps({"time": NOW_MS, "id": "a", "n": 1, "text": "NULL"}) + "\n" + json.dumps({"time": NOW_MS, "id": "b", "n": "x"})
    )
    for name in ("r.csv", "r.jsonl"):
        ((row,), (bad,)) = loaded(folder / name, EVENT, reading)
        assert (row["at"], row["must"], row["text"], row["_extra"]) == (NOW_MS, 1, None, None)
        assert (bad.column, bad.value, bad.reason) == ("n", "x", "wrong_type")


def test_ids_by_content(folder: Path) -> None:
    """Without an id, the content is one: the same in each format, different for each of equal rows."""
    event = Event("plain", {"at": int, "text": str}, time="at")
    rows = [{"at": NOW_MS, "text": "a"}, {"at": NOW_MS, "text": "b"}, {"at": NOW_MS, "text": "a"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "i.parquet")
    (folder / "i.csv").write_text("text,at\n" + "".join(f"{row['text']},{row['at']}\n" for row in rows))
    (folder / "i.jsonl").write_text("\n".join(map(json.dumps, reversed(rows))))
    found = [{row["_id"] for row in loaded(folder / f"i.{kind}", event)[0]} for kind in ("parquet", "csv", "jsonl")]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 3
    assert sum(id.endswith("-1") for id in found[0]) == 1


def test_a_field_declared_later_reads_text_of_files(tmp_path: Path) -> None:
    """Numbers of a CSV column that nothing declared are texts in `_extra`; the field has them when it is declared."""
    (tmp_path / "l.csv").write_text(f"at,id,must,tip,zip\n{NOW_MS},a,1,2.50,02134\n{NOW_MS},b,1,nan,7\n")
    taker = Taker(PROJECT, EVENT, FileRules(), None, "load:x", NOW_MS)
    store = OfflineStore(tmp_path / "store")
    table = store.counted_table("events/odd", taker.take(next(history_files([tmp_path / "l.csv"])[0].chunks())).rows.schema)
    table.append(taker.take(next(history_files([tmp_path / "l.csv"])[0].chunks())).rows, {})
    later = Event("odd", FIELDS | {"tip": float | None, "zip": str | None}, time="at", id="id")
    assert read_events(store, later, ["tip", "zip"]).select(["tip", "zip"]).to_pylist() == [
        {"tip": 2.5, "zip": "02134"},
        {"tip": None, "zip": "7"},
    ]


@pytest.mark.parametrize(
    ("columns", "reading", "told"),
    [
        ({"at": [1], "id": ["a"]}, FileRules(), "no column 'must'"),
        ({"at": [1], "ID": ["a"], "must": [1]}, FileRules(), "--rename 'ID=id'"),
        ({"at": [1], "id": ["a"], "must": [1.5], "text": [1.5]}, FileRules(), "is double, the event declares str"),
        ({"at": [True], "id": ["a"], "must": [1]}, FileRules(), "can be no time"),
        ({"at": [1_600_000_000], "id": ["a"], "must": [1]}, FileRules(), "--unit s"),
        ({"at": [1_600_000_000_000_000], "id": ["a"], "must": [1]}, FileRules(), "--unit us"),
        ({"at": [NOW_MS], "id": ["a"], "must": [1]}, FileRules(known="seen"), "no column 'seen'"),
        ({"at": [NOW_MS], "id": ["a"], "must": [1], "x": [1]}, FileRules(renamed={"must": "x"}), "a column 'must' besides 'x'"),
    ],
)
def test_files_that_cannot_be_the_event(tmp_path: Path, columns: dict[str, list[Any]], reading: FileRules, told: str) -> None:
    """A column that is missing, of a type that can never be the field's, or of times in another unit: the file is refused, with a mend."""
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    with pytest.raises(UnusableFile) as error:
        Taker(PROJECT, EVENT, reading, None, "", NOW_MS).check(next(history_files([tmp_path / "f.parquet"])[0].chunks()))
    assert told in str(error.value)
    assert error.value.mend


CHANGED = Event(
    "changed",
    {"at": Field(int, path="__source_ts_ms"), "who": str, "was": Field(float | None, path=["__before", "x"])},
    "at",
    envelope="debezium",
)


@pytest.mark.parametrize("with_schema", [False, True])
def test_columns_of_changes_are_no_rows(tmp_path: Path, with_schema: bool) -> None:
    """A table of what Debezium writes is refused with what to write instead, and that is taken."""
    written = ["schema", "payload"] if with_schema else ["before", "after", "source", "op", "ts_ms"]
    path, taker = tmp_path / "f.csv", Taker(Project("p", {"changed": CHANGED}, {}), CHANGED, FileRules(), None, "load:x", NOW_MS)
    path.write_text(",".join(written) + "\n" + ",".join("x" * len(written)) + "\n")
    with pytest.raises(UnusableFile, match="these are records of changes") as error:
        taker.check(next(history_files([path])[0].chunks()))
    assert "'__source_ts_ms', 'who' must be there" in (error.value.mend or "")
    path.write_text(f"who,__source_ts_ms\na,{NOW_MS}\n")
    chunks = list(history_files([path])[0].chunks())
    taker.check(chunks[0])
    (row,) = [row for chunk in chunks for row in taker.take(chunk).rows.to_pylist()]
    assert (row["who"], row["at"]) == ("a", NOW_MS)


def test_unusable_options() -> None:
    """A field that the event does not have, and a time zone that nobody has."""
    with pytest.raises(UnusableFile, match="no field 'mist'"):
        Taker(PROJECT, EVENT, FileRules(renamed={"mist": "x"}), None, "", NOW_MS)
    with pytest.raises(UnusableFile, match="no time zone"):
        Taker(PROJECT, EVENT, FileRules(times=TimeRule("Mars/Olympus")), None, "", NOW_MS)
