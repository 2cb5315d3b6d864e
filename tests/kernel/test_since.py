"""A view that was declared later equals one that was always there, or says that it cannot know: a differential test over random events."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.offline.lake import numbered

from tidemill import Event, FeatureView, count, last, mean
from tidemill.declarations.project import Project
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.served import serve
from tidemill.kernel.view import ViewKernel
from tidemill.offline.history import PartitionLog, Question, answer
from tidemill.offline.tables import view_table
from tidemill.records import ViewRecord, encode, since_of, since_record

START_MS = 1_790_000_000_000
MINUTE_MS = 60_000
EVENT = Event("e", {"who": str, "at": int, "x": float}, time="at")
VIEW = FeatureView(
    "v", EVENT, "who", [count(), mean("x"), last("x"), count(name="ever", windows=["lifetime"])], windows=["10m", "2h"], tile="5m"
)
KERNEL, DECODE = ViewKernel(VIEW), entry_decoder(VIEW)
Pairs = list[tuple[bytes, bytes]]


def pairs_of(minutes: list[int]) -> Pairs:
    """Events of one entity, each known when it happened."""
    times = [START_MS + minute * MINUTE_MS for minute in sorted(minutes)]
    return [(b"a", encode(ViewRecord(time, time, (0, i), {"x": float(i)}))) for i, time in enumerate(times)]


def folded(pairs: Pairs) -> tuple[Fence, dict[bytes, Any]]:
    """Fence and states of a log."""
    fold, states = PartitionFold.start(KERNEL), dict[bytes, Any]()
    progress = fold.advance([DECODE(i, key, value) for i, (key, value) in enumerate(pairs)], states)
    assert not progress.refused
    return fold.fence, states


def fed_since(minutes: list[int], since_ms: int) -> Pairs:
    """The log of the same view, declared at a moment."""
    later = [pair for pair in pairs_of(minutes) if msgspec.json.decode(pair[1])["known"] >= since_ms]
    return [since_record(since_ms), *later]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), st.integers(1, 300), st.integers(0, 600))
def test_a_view_that_was_declared_later(minutes: list[int], since: int, asked: int) -> None:
    """Every value is that of the view that was always there or INVALID, and one whose window began after the declaration is not INVALID."""
    since_ms, time_ms = START_MS + since * MINUTE_MS + 1, START_MS + asked * MINUTE_MS
    known = [minute for minute in minutes if minute <= asked]
    (_, always), (fence, later) = folded(pairs_of(known)), folded(fed_since(known, since_ms))
    assert fence.since_ms == since_ms
    if b"a" not in later:
        return
    wanted = serve(VIEW, KERNEL.read(KERNEL.encode(always[b"a"]), time_ms), time_ms)
    found = serve(VIEW, KERNEL.read(KERNEL.encode(later[b"a"]), time_ms, since_ms), time_ms)
    for feature, value, status, value_of_old, status_of_old in zip(
        VIEW.served, found.values, found.statuses, wanted.values, wanted.statuses, strict=True
    ):
        length, tile = feature.window.written_ms, feature.window.grid.tile_ms
        covered = length is not None and (time_ms - length) // tile * tile >= since_ms
        assert (status != "INVALID") is covered
        if covered:
            assert (status, np.float64(value).tobytes()) == (status_of_old, np.float64(value_of_old).tobytes())


def log_of(pairs: Pairs) -> PartitionLog:
    """The rows that the offline store would have."""
    project = Project("p", {"e": EVENT}, {"v": VIEW})
    return PartitionLog(VIEW, pa.Table.from_batches([view_table(project, VIEW).rows(0, numbered(pairs))]))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(0, 300), st.integers(0, 600))
def test_rows_answer_as_the_store_does(minutes: list[int], since: int, asked: int) -> None:
    """Replay and audit read rows: they say the same as a fold of the topic."""
    since_ms, time_ms = START_MS + since * MINUTE_MS, START_MS + asked * MINUTE_MS
    pairs = fed_since(minutes, since_ms)
    log, (fence, states) = log_of(pairs), folded(pairs)
    assert log.since_ms == fence.since_ms == since_ms
    wanted = repr(KERNEL.read(KERNEL.encode(states[b"a"]), time_ms, since_ms)) if states else "None"
    assert repr(answer(KERNEL, log, [Question(len(pairs), b"a", time_ms)])[0]) == wanted


def test_what_the_record_leaves_as_it_is() -> None:
    """It is no event and no poison; a fence of a log without one has the bytes that it always had, and the latest of several counts."""
    pairs = pairs_of([1, 2])
    (plain, states), (told, others) = folded(pairs), folded([since_record(5), since_record(9), since_record(7), *pairs])
    assert {key: KERNEL.encode(state) for key, state in states.items()} == {key: KERNEL.encode(state) for key, state in others.items()}
    assert b"since" not in plain.encode()
    assert (plain.since_ms, told.since_ms, told.poison, told.next) == (0, 9, 0, 5)
    assert Fence.decode(told.encode()) == told
    assert log_of(pairs).since_ms == 0


@pytest.mark.parametrize(
    "key", [b"", b"a", b"tidemill:since:", b"tidemill:since:-5", b"tidemill:since:12345678901234567", b"tidemill:since:1x"]
)
def test_other_keys_tell_nothing(key: bytes) -> None:
    """Only the key as it is made is such a record."""
    assert since_of(key) is None
    assert since_of(since_record(START_MS)[0]) == START_MS


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), st.integers(1, 300), st.integers(0, 600))
def test_a_field_that_earlier_events_lack(minutes: list[int], since: int, asked: int) -> None:
    """Features that read it are INVALID while their window begins earlier, those of the whole life for ever; all else is as it was."""
    since_ms, time_ms = START_MS + since * MINUTE_MS + 1, START_MS + asked * MINUTE_MS
    view = VIEW.as_version(2, in_force=True, since={"x": since_ms})
    stored = KERNEL.encode(folded(pairs_of(minutes))[1][b"a"])
    plain = serve(VIEW, KERNEL.read(stored, time_ms), time_ms)
    found = serve(view, ViewKernel(view).read(stored, time_ms), time_ms)
    for i, feature in enumerate(VIEW.served):
        length, tile = feature.window.written_ms, feature.window.grid.tile_ms
        covered = length is not None and (time_ms - length) // tile * tile >= since_ms
        held = covered or feature.aggregation.column is None
        np.testing.assert_equal((found.values[i], found.statuses[i]), (plain.values[i], plain.statuses[i]) if held else (np.nan, "INVALID"))
