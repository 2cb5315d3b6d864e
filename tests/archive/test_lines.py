"""JSON lines beside the live path, and lines that are read as columns beside lines that are read one at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archive.test_taking import CELLS, EVENT, IDS, INTS, PROJECT, TIMES, assert_same, folder, live, loaded
from tests.archive.trips import NOW_MS

from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import Chunk
from tidemill.archive.json_columns import JsonColumns
from tidemill.archive.taking import Taker
from tidemill.archive.times import TimeRule
from tidemill.declarations import Event

__all__ = ["folder"]
ANY = st.none() | st.booleans() | INTS | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3) | st.just([1])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries({}, optional={name: cells | ANY for name, cells in CELLS.items()}).map(
            lambda row: {name: value for name, value in row.items() if repr(value) != "nan"}
        ),
        min_size=1,
        max_size=8,
    ),
    junk=st.sampled_from([b"", b"[]", b"{", b'"x"', b'{"at":NaN}', b"\xff", b'{"id":"\xff"}']),
)
def test_json_lines(folder: Path, rows: list[dict[str, Any]], junk: bytes) -> None:
    """JSON lines: values of any type, members that are missing or not declared, lines that are no JSON."""
    lines = [*(json.dumps(row).encode() for row in rows), junk]
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    found, refused = loaded(folder / "rows.jsonl", EVENT)
    whole = {number: row["at"] for number, row in enumerate(rows) if type(row.get("at")) in (int, float) and abs(row["at"]) < 2**63}
    expected = live(EVENT, lines, [int(whole[number]) if number in whole else None for number in range(len(lines))])
    assert_same(found, refused, expected, len(rows) + bool(junk))


RULES = [
    FileRules(),
    FileRules(known="seen"),
    FileRules(known="at", times=TimeRule(unit="s")),
    FileRules({"text": "note", "at": "time"}),
    FileRules({"text": "Text", "Text": "text"}, known="seen", times=TimeRule("Asia/Seoul")),
    FileRules(nulls=("NA", "")),
]
MOMENTS = TIMES | st.sampled_from(["2023-11-14T22:00:00Z", "2023-11-14 22:00:00", "soon", "1700000000000", "", 1.5, 1_700_000_000])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"id": IDS, "must": INTS},
            optional={name: CELLS[name] for name in ("real", "flag", "whole")}
            | {name: st.just("NA") | st.text(max_size=3) | ANY for name in ("text", "Text", "note", "extra", "odd one")}
            | dict.fromkeys(("at", "time", "seen"), MOMENTS),
        ).map(lambda row: {name: value for name, value in row.items() if repr(value) not in ("nan", "inf", "-inf")}),
        min_size=1,
        max_size=8,
    ),
    reading=st.sampled_from(RULES),
    event=st.sampled_from([EVENT, replace(EVENT, extra="refuse")]),
    spelled=st.sampled_from([{}, {"ensure_ascii": False}, {"indent": None, "separators": (" , ", " : ")}]),
)
def test_lines_as_columns(rows: list[dict[str, Any]], reading: FileRules, event: Event, spelled: dict[str, Any]) -> None:
    """Lines that are read as columns become the rows that they become one at a time, undeclared members as the file spells them."""
    lines = [json.dumps(row, **spelled).encode() for row in rows]
    numbers = np.arange(len(lines))
    takers = [Taker(PROJECT, event, reading, None, "load:x", NOW_MS) for _ in range(2)]
    takers[1]._json = None
    by_columns, one_by_one = (taker.take(Chunk(lines, numbers, numbers + 1, [], 1.0)) for taker in takers)
    assert repr(by_columns.rows.to_pylist()) == repr(one_by_one.rows.to_pylist())
    assert by_columns.refused == one_by_one.refused


def test_most_lines_are_columns() -> None:
    """What an ordinary file has needs no look at single lines; longer members, odd bytes and other types do."""
    reader = JsonColumns(EVENT, FileRules(), {"at"}, 200)
    good = [b'{"at":1,"id":"a","must":2,"real":3}', b'{"id":"b","at":2,"must":2,"text":"\xc3\xa9"}']
    found = reader.read([good[0], b'{"at":1,"id":"a","must":"2"}', b"{", good[1], *good * 50, b'{"at":1,"id":"a","must":1,"more":1}'])
    assert found.places.tolist() == [0, *range(3, 104)]
    assert set(found.extra.to_pylist()) == {None}
    found = reader.read([b'{"at":1,"id":"a","must":2, "more": 1.50 }', b'{"more":"\xff"}', b'{"more":"%s"}' % (b"x" * 200), good[0]])
    assert found.places.tolist() == [0, 3]
    assert found.extra.to_pylist() == ['{"more":1.50}', None]
    assert found.rows.column("real").to_pylist() == [None, 3.0]
    assert len(reader.read([good[0], b'{"at":"2023-11-14T22:00:00Z","id":"a","must":2}']).places) == 0
