"""Reading a view as it was equals a fold cut at the same record, and by knowledge a fold of what was known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from tests.demo_state import HOUR_MS, NOW_MS, demo
from tests.offline.lake import numbered

from tidemill import Event, FeatureView
from tidemill import sum as sum_
from tidemill.declarations.project import Project
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


def log_of(sent: Sequence[Sent]) -> PartitionLog:
    """The rows that the offline store would have."""
    pairs: list[Any] = [(item.key, item.value) for item in sent]
    return PartitionLog(VIEW, pa.Table.from_batches([view_table(demo(), VIEW).rows(0, numbered(pairs))]))


def bits(reading: Reading | None) -> object:
    """A reading, so that equal means the same bits."""
    return None if reading is None else (np.array(reading.values).tobytes(), reading.newest_ms, reading.complete)


def cut(sent: Sequence[Sent], rows: int, entity: bytes, time_ms: int) -> Reading | None:
    """The answer by folding the first records of the log from the start, and reading what would be stored."""
    fold, states = PartitionFold.start(KERNEL), dict[bytes, Any]()
    for offset, item in enumerate(sent[:rows]):
        fold.advance([DECODE(offset, item.key, item.value)], states)
    return KERNEL.read(KERNEL.encode(states[entity]), time_ms) if entity in states else None


@given(logs(), st.data())
def test_some_entities_show_what_they_show_among_all(sent: list[Sent], data: st.DataObject) -> None:
    """The records of the entities asked for, alone, answer as the whole log does, with records sent twice and poison in it."""
    asked = data.draw(st.sets(st.sampled_from(ZONES), min_size=1))
    whole = log_of(sent)
    alone = whole.of({zone.encode() for zone in asked})
    fences = data.draw(st.lists(st.tuples(st.integers(0, len(sent)), st.sampled_from(sorted(asked))), max_size=9))
    times = [NOW_MS + HOUR_MS for _ in fences]
    questions = [
        [Question(log.rows_below(fence), zone.encode(), time) for (fence, zone), time in zip(fences, times, strict=True)]
        for log in (whole, alone)
    ]
    first, second = answer(KERNEL, whole, questions[0]), answer(KERNEL, alone, questions[1])
    assert list(map(bits, first)) == list(map(bits, second))
    assert {entry.key.decode() for entry in alone.entries()} <= asked


def usable(sent: Sequence[Sent]) -> list[Sent]:
    """The records that count: not poison, and routed for the first time."""
    kept: list[Sent] = []
    for item in sent:
        if item.record is not None:
            partition, offset = item.record.source
            if all(other.record is None or other.record.source[0] != partition or other.record.source[1] < offset for other in kept):
                kept.append(item)
    return kept


def known_by(sent: Sequence[Sent], entity: bytes, time_ms: int) -> Reading | None:
    """The answer from what was known at the request's time, in the order in which it became known."""
    known = [item for item in usable(sent) if item.record is not None and item.record.known <= time_ms]
    state = KERNEL.new_state()
    for item in sorted(known, key=lambda item: item.record.known if item.record else 0):
        if item.key == entity:
            typed = DECODE(0, item.key, item.value).record
            KERNEL.apply(state, typed.time, typed.id, typed.values)
    return KERNEL.read(KERNEL.encode(state), time_ms) if any(item.key == entity for item in known) else None


def test_fields_of_any_name() -> None:
    """Fields may begin with an underscore, be called like a method of a tuple, or like a place among the others."""
    event = Event("e", {"who": str, "at": int, "_x": float, "count": float, "f0": float}, time="at")
    view = FeatureView("v", event, "who", [sum_("_x"), sum_("count"), sum_("f0")], windows=["1h"])
    record = ViewRecord(NOW_MS, NOW_MS, (0, 1), {"_x": 1.0, "count": 2.0, "f0": 4.0})
    rows = view_table(Project("p", {"e": event}, {"v": view}), view).rows(0, numbered([(b"a", encode(record))]))
    (entry,) = PartitionLog(view, pa.Table.from_batches([rows])).entries()
    assert (entry.record.values._x, entry.record.values.count, entry.record.values.f0) == (1.0, 2.0, 4.0)
    states = dict[bytes, Any]()
    PartitionFold.start(ViewKernel(view)).advance([entry], states)
    assert ViewKernel(view).read_state(states[b"a"], NOW_MS).values == [1.0, 2.0, 4.0]


@given(logs(), st.data())
def test_answers_equal_a_fold_cut_at_the_same_record(sent: list[Sent], data: st.DataObject) -> None:
    """Any number of questions, in any order, get what a fold of just those records would have stored."""
    asked = st.tuples(st.integers(0, len(sent)), st.sampled_from([*ZONES, "nobody"]), st.integers(-40, 40))
    questions = [Question(rows, zone.encode(), NOW_MS + hours * HOUR_MS) for rows, zone, hours in data.draw(st.lists(asked, max_size=8))]
    found = answer(KERNEL, log_of(sent), questions)
    assert [bits(reading) for reading in found] == [bits(cut(sent, *question)) for question in questions]


@given(logs(), st.data())
def test_answers_by_knowledge_equal_what_was_known(sent: list[Sent], data: st.DataObject) -> None:
    """A question by time sees every record known by then, each once, and none known later."""
    log = log_of(sent).by_knowledge()
    times = [NOW_MS + 60_000 * minutes for minutes in data.draw(st.lists(st.integers(-6, 32), min_size=1, max_size=6))]
    rows = log.rows_known_at(np.array(times, np.int64))
    pairs = [(int(n), zone.encode(), time_ms) for n, time_ms in zip(rows, times, strict=True) for zone in ZONES]
    found = answer(KERNEL, log, [Question(*pair) for pair in pairs])
    assert [bits(reading) for reading in found] == [bits(known_by(sent, zone, time_ms)) for _, zone, time_ms in pairs]


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
            assert (seen.time, seen.known, seen.source, seen.id) == (wanted.time, wanted.known, wanted.source, wanted.id)
            assert (seen.values.fare, seen.values.tip) == (wanted.values.fare, wanted.values.tip)


@given(logs(), st.integers(-40, 40))
def test_a_state_reads_as_its_stored_value_does(sent: list[Sent], hours: int) -> None:
    """Reading a state directly gives the bits that reading its stored value gives."""
    states: dict[bytes, Any] = {}
    PartitionFold.start(KERNEL).advance([DECODE(offset, item.key, item.value) for offset, item in enumerate(sent)], states)
    for state in states.values():
        time_ms = NOW_MS + hours * HOUR_MS
        assert bits(KERNEL.read_state(state, time_ms)) == bits(KERNEL.read(KERNEL.encode(state), time_ms))


def test_an_empty_log_answers_nothing() -> None:
    """A partition without rows knows nobody, by stamp and by knowledge."""
    log = log_of([])
    assert (log.end, log.rows_below(7)) == (0, 0)
    assert answer(KERNEL, log, [Question(0, b"north", NOW_MS)]) == [None]
    assert log.by_knowledge().rows_known_at(np.array([NOW_MS], np.int64)).tolist() == [0]
