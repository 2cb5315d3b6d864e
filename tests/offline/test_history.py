"""Reading a view as it was equals a fold cut at the same record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.demo_state import HOUR_MS, NOW_MS, demo
from tests.offline.lake import numbered

from tidemill import Event, FeatureView, count, mean
from tidemill import sum as sum_
from tidemill.declarations.project import Project
from tidemill.errors import AbsentColumns
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.view import Reading, ViewKernel
from tidemill.offline.history import PartitionLog, Question, answer
from tidemill.offline.tables import view_table
from tidemill.records import ViewRecord, encode

VIEW = demo().views["zones"]
KERNEL = ViewKernel(VIEW)
DECODE = entry_decoder(VIEW)
ZONES = ["north", "süd", ""]


@dataclass(frozen=True)
class Sent:
    """One record of the view's topic, as bytes, and what a reader of the log needs to judge it; `record` None: poison."""

    key: bytes
    value: bytes
    record: ViewRecord | None


@st.composite
def logs(draw: st.DrawFn) -> list[Sent]:
    """Records of one partition: events out of order and too late, published twice, routed twice, and poison; known in any order."""
    sent: list[Sent] = []
    offsets = [0, 0, 0]
    steps = st.tuples(
        st.sampled_from(ZONES), st.integers(0, 2), st.integers(-30, 30), st.integers(-5, 5), st.none() | st.floats(-9, 9),
        st.none() | st.sampled_from("abc"), st.sampled_from(["new"] * 8 + ["again", "poison"]),
    )  # fmt: skip
    for i, (zone, source, hours, minutes, tip, event_id, kind) in enumerate(draw(st.lists(steps, min_size=1, max_size=25))):
        if kind == "again" and sent:
            sent.append(draw(st.sampled_from(sent)))
        elif kind == "poison":
            sent.append(Sent(zone.encode(), b'{"time": "soon"}', None))
        else:
            offsets[source] += 1
            known = NOW_MS + 60_000 * (i + minutes)
            record = ViewRecord(known + hours * HOUR_MS, known, (source, offsets[source]), {"fare": float(i), "tip": tip}, event_id)
            sent.append(Sent(zone.encode(), encode(record), record))
    return sent


def log_of(sent: Sequence[Sent], view: FeatureView = VIEW) -> PartitionLog:
    """The rows that the offline store would have."""
    pairs: list[Any] = [(item.key, item.value) for item in sent]
    return PartitionLog(view, pa.Table.from_batches([view_table(demo(), view).rows(0, numbered(pairs))]))


def bits(reading: Reading | None) -> object:
    """A reading, so that equal means the same bits."""
    return None if reading is None else (np.array(reading.values).tobytes(), reading.newest_ms, reading.complete)


def cut(sent: Sequence[Sent], rows: int, entity: bytes, time_ms: int, kernel: ViewKernel = KERNEL) -> Reading | None:
    """The answer by folding the first records of the log from the start, and reading what would be stored."""
    fold, states = PartitionFold.start(kernel), dict[bytes, Any]()
    for offset, item in enumerate(sent[:rows]):
        fold.advance([DECODE(offset, item.key, item.value)], states)
    return kernel.read(kernel.encode(states[entity]), time_ms) if entity in states else None


def usable(sent: Sequence[Sent]) -> list[Sent]:
    """The records that count: not poison, and routed for the first time."""
    kept: list[Sent] = []
    for item in sent:
        if item.record is not None:
            partition, offset = item.record.source
            if all(other.record is None or other.record.source[0] != partition or other.record.source[1] < offset for other in kept):
                kept.append(item)
    return kept


def test_fields_of_any_name() -> None:
    """Fields may begin with an underscore, be called like a method of a tuple, or like a place among the others."""
    event = Event("e", {"who": str, "at": int, "_x": float, "count": float, "f0": float}, time="at")
    view = FeatureView("v", event, "who", [sum_("_x"), sum_("count"), sum_("f0")], windows=["1h"])
    record = ViewRecord(NOW_MS, NOW_MS, (0, 1), {"_x": 1.0, "count": 2.0, "f0": 4.0})
    rows = view_table(Project("p", {"e": event}, {"v": view}), view).rows(0, numbered([(b"a", encode(record))]))
    (entry,) = PartitionLog(view, pa.Table.from_batches([rows])).entries()
    assert entry.record is not None
    assert [getattr(entry.record.values, name) for name in ("_x", "count", "f0")] == [1.0, 2.0, 4.0]
    states = dict[bytes, Any]()
    PartitionFold.start(ViewKernel(view)).advance([entry], states)
    assert ViewKernel(view).read_state(states[b"a"], NOW_MS).values == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("kernel", [KERNEL, ViewKernel(dataclasses.replace(VIEW, erase="tip > 3 or fare == 2"))], ids=["plain", "erased"])
@given(logs(), st.data())
def test_answers_equal_a_fold_cut_at_the_same_record(kernel: ViewKernel, sent: list[Sent], data: st.DataObject) -> None:
    """Any number of questions, in any order, get what a fold of just those records would have stored."""
    asked = st.tuples(st.integers(0, len(sent)), st.sampled_from([*ZONES, "nobody"]), st.integers(-40, 40))
    questions = [Question(rows, zone.encode(), NOW_MS + hours * HOUR_MS) for rows, zone, hours in data.draw(st.lists(asked, max_size=8))]
    found = answer(kernel, log_of(sent, kernel.view), questions)
    assert [bits(reading) for reading in found] == [bits(cut(sent, *question, kernel)) for question in questions]


@given(logs())
def test_entries_are_those_of_the_worker(sent: list[Sent]) -> None:
    """Rows give back offset, key, proof and record as the worker decoded them from the topic, from any row on."""
    entries = [DECODE(offset, item.key, item.value) for offset, item in enumerate(sent)]
    start = len(sent) // 2
    log = log_of(sent)
    assert log.end == len(log) == len(sent)
    for entry, expected in zip([*log.entries(0, start), *log.entries(start)], entries, strict=True):
        assert (entry.offset, entry.key, entry.proof) == (expected.offset, expected.key, expected.proof)
        assert (entry.record is None) == (expected.record is None)
        if expected.record is not None:
            seen, wanted = entry.record, expected.record
            assert seen is not None
            assert (seen.time, seen.known, seen.source, seen.id) == (wanted.time, wanted.known, wanted.source, wanted.id)
            for name in ("fare", "tip"):
                assert getattr(seen.values, name) == getattr(wanted.values, name)


@given(logs(), st.integers(-40, 40))
def test_a_state_reads_as_its_stored_value_does(sent: list[Sent], hours: int) -> None:
    """Reading a state directly gives the bits that reading its stored value gives."""
    states: dict[bytes, Any] = {}
    PartitionFold.start(KERNEL).advance([DECODE(offset, item.key, item.value) for offset, item in enumerate(sent)], states)
    for state in states.values():
        time_ms = NOW_MS + hours * HOUR_MS
        assert bits(KERNEL.read_state(state, time_ms)) == bits(KERNEL.read(KERNEL.encode(state), time_ms))


def test_an_empty_log_answers_nothing() -> None:
    """A partition without rows knows nobody."""
    log = log_of([])
    assert (log.end, log.rows_below(7)) == (0, 0)
    assert answer(KERNEL, log, [Question(0, b"north", NOW_MS)]) == [None]


EVENT = Event("e", {"who": str, "at": int, "x": float, "miles": float, "note": float | None}, time="at")
OLDER, NEWER = (FeatureView("v", EVENT, "who", [count(), *more], windows=["1h"]) for more in ([sum_("x")], [sum_("x"), mean("miles")]))


def table_of(view: FeatureView, records: Sequence[tuple[bytes, bytes]], first: int = 0) -> pa.RecordBatch:
    """Rows as the offline writer makes them while a view is declared so."""
    return view_table(Project("p", {"e": EVENT}, {"v": view}), view).rows(0, numbered(records, first))


def older(i: int, **values: float) -> tuple[bytes, bytes]:
    """A record of the view as it was, or with more values."""
    return b"a", encode(ViewRecord(NOW_MS + i, NOW_MS, (0, i), {"x": 1.0, **values}))


@pytest.mark.parametrize("mirrored_before", [True, False])
def test_rows_without_a_column_are_kept_and_never_folded(mirrored_before: bool) -> None:
    """Records of before a column was folded are rows with all that they have, mirrored early or late, and a fold that needs the column refuses."""
    past = [older(i) for i in range(3)] + [(b"a", b"{")]
    written = pa.Table.from_batches([table_of(OLDER if mirrored_before else NEWER, past)])
    now = pa.Table.from_batches([table_of(NEWER, [older(i, miles=2.0) for i in range(4, 6)], 4)])
    both = pa.concat_tables([written, now], promote_options="default")
    assert both["time"].to_pylist() == [NOW_MS, NOW_MS + 1, NOW_MS + 2, None, NOW_MS + 4, NOW_MS + 5]
    with pytest.raises(AbsentColumns, match=r"view 'v': records of its log below offset 3 lack miles.*another name"):
        PartitionLog(NEWER, both)
    if mirrored_before:  # the table has no such column yet
        with pytest.raises(AbsentColumns, match="below offset 3 lack miles"):
            PartitionLog(NEWER, written)
    assert [entry.record is None for entry in PartitionLog(OLDER, both).entries()] == [False, False, False, True, False, False]
    assert len(list(PartitionLog(NEWER, now).entries())) == 2


def test_a_record_without_a_column_is_no_poison() -> None:
    """A worker says which columns it lacks; a value of a wrong type, or null where none may be, is poison as ever."""
    decode = entry_decoder(NEWER)
    with pytest.raises(AbsentColumns, match="below offset 8 lack miles"):
        decode(7, *older(7))
    assert decode(7, b"a", encode(ViewRecord(1, 1, (0, 1), {"x": 1.0, "miles": None}))).record is None
    assert decode(7, b"a", encode(ViewRecord(1, 1, (0, 1), {"x": 1.0, "miles": "far"}))).record is None
    assert table_of(NEWER, [(b"a", encode(ViewRecord(1, 1, (0, 1), {"x": 1.0, "miles": "far"})))])["time"].to_pylist() == [None]
