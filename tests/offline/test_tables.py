"""Records become rows: every field in its column, and a blank row for exactly those records that the fold cannot use either."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.offline.lake import NOW_MS, lake, numbered, shop_value

from tidemill.checksums import proof_of
from tidemill.kernel.fold import entry_decoder
from tidemill.names import log_name
from tidemill.offline.tables import (
    RESULTS_SCHEMA,
    entities_of_row,
    mirror_tables,
    predictions_table,
    result_of_row,
    results_rows,
    stamp_of_row,
    view_table,
)
from tidemill.records import PredictionRecord, ResultRecord, StampEntry, encode

PROJECT = lake()
SHOPS = view_table(PROJECT, PROJECT.views["shops"])
ITEMS = view_table(PROJECT, PROJECT.views["items"])


def test_view_rows_hold_every_field() -> None:
    """A view record's fields stand in columns of their own, values under `v_`."""
    (row,) = SHOPS.rows(2, numbered([(b"x", shop_value(3))], 7)).to_pylist()
    proof = proof_of(b"x", shop_value(3))
    head = {"partition": 2, "offset": 7, "key": "x", "proof": proof, "time": NOW_MS + 3, "known": NOW_MS + 8}
    values = {"v_price": 1.5, "v_weight": pytest.approx(0.3), "v_pieces": 3, "v_paid": False}
    assert row == {**head, "source_partition": 3, "source_offset": 3, "id": "id3", **values}


def test_view_without_values_has_rows_too() -> None:
    """A view that only counts has no value columns."""
    (row,) = ITEMS.rows(0, numbered([(b"1", b'{"time":1,"known":2,"source":[0,3],"values":{}}')])).to_pylist()
    assert (row["time"], row["source_offset"], row["id"]) == (1, 3, None)
    assert not [name for name in row if name.startswith("v_")]


def test_prediction_rows() -> None:
    """A prediction's inputs keep their float32 values and nulls; entities and stamp come back as they were."""
    stamp = [StampEntry(log_name("shops", 3), 1, 17)]
    record = PredictionRecord("p", "m", "1", 5, 6, [0.10000000149011612, None], 0.25, "s", {"shop": "a"}, stamp)
    (row,) = predictions_table(PROJECT).rows(3, numbered([(b"p", encode(record))])).to_pylist()
    assert (row["id"], row["inputs"], row["output"], row["subject"]) == ("p", [0.10000000149011612, None], 0.25, "s")
    assert (stamp_of_row(row["stamp"]), entities_of_row(row["entities"])) == (stamp, {"shop": "a"})


def test_results_rows_are_the_records() -> None:
    """A result's row converts back into the record, whether the outcome is a number or a text."""
    results = [
        ResultRecord(0, "p", "m", "1", "s", 5, 0.25, "joined", 9, 1.0),
        ResultRecord(1, "q", "m", "1", "s", 5, 0.5, "never", 9),
        ResultRecord(2, "r", "m", "1", "s", 5, 0.75, "joined", 9, "late", {"late": 0.75, "on time": 0.25}),
    ]
    rows = results_rows(results)
    assert rows.schema == RESULTS_SCHEMA
    assert [result_of_row(row) for row in rows.to_pylist()] == results


def test_bad_records_are_blank_rows_among_good_ones() -> None:
    """One record that cannot be decoded does not disturb its neighbours, and keeps its offset, key and checksum."""
    good = shop_value(1)
    bad: list[tuple[bytes | None, bytes | None]] = [
        (b"k", b"not json"),
        (None, good),
        (b"k", None),
        (b"\xff", good),
        (b"k", shop_value(1, pieces=2**63)),
        (b"k", b"[" * 100_000),
    ]
    rows = SHOPS.rows(0, numbered([(b"a", good), *bad, (b"b", good)])).to_pylist()
    assert [row["offset"] for row in rows] == list(range(8))
    assert [row["time"] is None for row in rows] == [False, *[True] * 6, False]
    assert [row["key"] for row in rows] == ["a", "k", "", "k", "\\xff", "k", "k", "b"]
    assert [row["proof"] for row in rows[1:7]] == [proof_of(key, value) for key, value in bad]
    assert all(row[name] is None for row in rows[1:7] for name in row if name not in ("partition", "offset", "key", "proof"))


def test_every_mirrored_topic_has_a_table() -> None:
    """Views, predictions and shadows: one table each, with the partitions of its topic."""
    assert [(table.name, table.topic, table.partitions) for table in mirror_tables(PROJECT)] == [
        ("views/shops.p3", "lake.view.shops.p3", 3),
        ("views/items.p2", "lake.view.items.p2", 2),
        ("predictions", "lake.predictions", 4),
        ("shadows", "lake.shadows", 4),
    ]


_numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.none(), st.booleans())
_json = st.recursive(st.one_of(_numbers, st.text(max_size=5)), lambda inner: st.lists(inner, max_size=3), max_leaves=4)
_view_values = st.fixed_dictionaries(
    {"price": _numbers, "pieces": _numbers, "paid": st.one_of(st.booleans(), _json)}, optional={"weight": _numbers, "other": _json}
)
_view_records = st.fixed_dictionaries(
    {
        "time": _numbers,
        "known": st.integers(0, 2**54),
        "source": st.lists(st.integers(-1, 2**40), min_size=2, max_size=2),
        "values": _view_values,
    },
    optional={"id": _json, "more": _json},
).map(msgspec.json.encode)
_good = st.integers(0, 1000).map(shop_value)
_pairs = st.tuples(
    st.one_of(st.none(), st.binary(max_size=3), st.text(max_size=3).map(str.encode)),
    st.one_of(st.none(), st.binary(), _good, _view_records),
)


@given(st.lists(_pairs, min_size=1, max_size=12))
def test_rows_agree_with_the_fold(pairs: list[tuple[bytes | None, bytes | None]]) -> None:
    """A row is blank exactly where the fold skips the record; else both hold the same values."""
    decode = entry_decoder(PROJECT.views["shops"])
    rows = SHOPS.rows(1, numbered(pairs, 100)).to_pylist()
    for row, record in zip(rows, numbered(pairs, 100), strict=True):
        entry = decode(record.offset, record.key, record.value)
        assert (row["offset"], row["proof"]) == (entry.offset, entry.proof)
        assert (row["time"] is None) == (entry.record is None)
        if entry.record is not None:
            values: Any = entry.record.values
            expected = (entry.key, entry.record.time, entry.record.known, entry.record.source, entry.record.id)
            assert (row["key"].encode(), row["time"], row["known"], (row["source_partition"], row["source_offset"]), row["id"]) == expected
            assert [row[f"v_{name}"] for name in ("price", "weight", "pieces", "paid")] == [
                values.price,
                values.weight,
                values.pieces,
                values.paid,
            ]


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.binary(max_size=3)), st.one_of(st.none(), st.binary(), _json.map(msgspec.json.encode))),
        max_size=6,
    )
)
def test_no_content_raises(pairs: list[tuple[bytes | None, bytes | None]]) -> None:
    """Whatever a topic holds, each record is one row of each kind of table."""
    for table in mirror_tables(PROJECT):
        assert table.rows(0, numbered(pairs)).num_rows == len(pairs)
