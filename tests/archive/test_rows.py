"""What becomes of records: rows equal what a plain reading of the JSON says, whole and exact."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archive.trips import NOW_MS, Sent, project_of, trip

from tidemill.archive.columns import OWN, table_schema
from tidemill.archive.rows import EventTable, event_table
from tidemill.declarations import Event
from tidemill.declarations.project import Project

FIELDS = {
    "at": int,
    "id": str,
    "whole": int | None,
    "real": float | None,
    "text": str | None,
    "flag": bool | None,
    "_known": str | None,
    "Text": str | None,
}
EVENT = Event("odd", FIELDS, time="at", id="id")
PROJECT = Project("p", {"odd": EVENT}, {}, {})
TABLE = event_table(PROJECT, EVENT)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
ANY = st.recursive(
    SCALARS | st.integers(2**63, 2**80), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)


def trips_table(found: pa.Schema | None = None) -> EventTable:
    """The table of the tests' project, which had these columns."""
    project = project_of()
    return event_table(project, project.events["trips"], found)


def only(table: EventTable, *records: Sent) -> list[dict[str, Any]]:
    """The rows of some records of partition 1."""
    rows: list[dict[str, Any]] = table.rows(1, records).to_pylist()
    return rows


def bits(value: Any) -> Any:
    """A value in which no two doubles are equal that differ in a bit."""
    return struct.pack("<d", value) if isinstance(value, float) else (type(value), value)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    declared=st.fixed_dictionaries(
        {},
        optional={
            "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
            "real": st.none() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False),
            "text": st.none() | st.text(max_size=12),
            "flag": st.none() | st.booleans(),
            "_known": st.none() | st.text(max_size=5),
            "Text": st.none() | st.text(max_size=5),
        },
    ),
    more=st.dictionaries(st.text(max_size=6).filter(lambda name: name not in FIELDS), ANY, max_size=3),
)
def test_a_row_is_the_event(declared: dict[str, Any], more: dict[str, Any]) -> None:
    """Every value is in the row, in its column or in `_extra`, with all its digits; nothing else is."""
    value = json.dumps({"at": NOW_MS - 5, "id": "x"} | declared | more).encode()
    (row,) = only(TABLE, Sent(7, value))
    whole = json.loads(value)
    assert (row["_topic"], row["_partition"], row["_offset"], row["_id"]) == ("odd", 1, 7, "x")
    assert (row["_known"].timestamp() * 1000, row["_time"].timestamp() * 1000) == (NOW_MS, NOW_MS - 5)
    for name in ("at", "id", "whole", "real", "text", "flag"):
        expected = whole.pop(name, None)
        assert bits(row[name]) == bits(float(expected) if name == "real" and expected is not None else expected)
    left = json.loads(row["_extra"]) if row["_extra"] else {}
    assert {name: bits(content) for name, content in left.items()} == {name: bits(content) for name, content in whole.items()}
    assert (row["_extra"] is None) == (not whole)


@pytest.mark.parametrize("text", ["1e400", "0.1000000000000000000001", "9" * 40, "-0.0", "1E5", '"\\u0041"', "[1.0, 2]"])
def test_what_is_not_declared_keeps_its_text(text: str) -> None:
    """`_extra` has the publisher's own text of a value, not a number that was read and written again."""
    (row,) = only(TABLE, Sent(0, trip(1, fare=..., zone=..., seats=...)[:-1] + f', "odd": {text}}}'.encode()))
    assert msgspec.json.decode(row["_extra"], type=dict[str, msgspec.Raw]) == {"odd": msgspec.Raw(text.encode())}


def test_only_accepted_events_are_rows() -> None:
    """What ingestion refuses is no row: not JSON, empty, a wrong type, a missing field, an empty key, a time ahead."""
    table = trips_table()
    bad = [None, b"", b"junk", trip(1, fare="x"), trip(2, zone=...), trip(3, zone=""), trip(4, at=NOW_MS + 10**8)]
    records = [Sent(offset, value) for offset, value in enumerate([trip(0), *bad, trip(9)])]
    assert [row["_offset"] for row in only(table, *records)] == [0, 8]
    nothing = table.rows_of({0: records[1:8]})
    assert (len(nothing), nothing.schema) == (0, table.schema)
    assert len(table.rows_of({})) == 0


def test_cloud_events() -> None:
    """Binary and structured mode: attributes stand for what the data lacks, and the moment that the publisher tells is `_known`."""
    table = trips_table()
    headers = [("ce_id", b"c1"), ("ce_time", b"2023-11-14T22:00:00Z"), ("ce_recordedtime", b"1699999999999"), ("ce_type", b"trips")]
    data = json.loads(trip(1, at=..., id=..., colour="red"))
    structured = {"type": "trips", "id": "c1", "time": "2023-11-14T22:00:00Z", "recordedtime": 1699999999999, "data": data}
    binary = Sent(0, json.dumps(data).encode(), headers=headers)
    json_mode = Sent(0, json.dumps(structured).encode(), headers=[("content-type", b"application/cloudevents+json")])
    (row,) = only(table, binary)
    assert only(table, json_mode) == [row]
    assert (row["_id"], row["id"], row["at"], row["_known"].timestamp(), row["_extra"]) == (
        "c1", "c1", 1_699_999_200_000, 1699999999.999, '{"colour":"red"}',
    )  # fmt: skip


def test_a_field_whose_column_the_table_cannot_have() -> None:
    """A table has another type, or another spelling, of a field: the value stays whole in `_extra`, whether or not it is there already."""
    found = pa.schema([*OWN, ("fare", pa.string()), ("ZONE", pa.string())])
    table = trips_table(found)
    assert table.schema == table_schema(project_of().events["trips"], found)
    (row,) = only(table, Sent(0, trip(3)))
    assert "fare" not in row
    assert json.loads(row["_extra"]) == {"zone": "z3", "fare": 0.75}
