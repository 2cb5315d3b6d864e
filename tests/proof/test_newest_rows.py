"""Where an entity with too many rows is cut, and which windows its newest rows decide: against every row."""

from __future__ import annotations

from itertools import accumulate

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, count
from tidemill.proof.newest_rows import WHOLE, Cut, by_cut, cuts, decided
from tidemill.verify.sql import LOG_TIME

PAID = Event("paid", {"card": str, "at": int}, time="at")
MINUTE_MS = 60_000
START_MS = 1_700_000_000_000


def view(ahead: str | None, dedupe: int | str = 2) -> FeatureView:
    """Windows of three lengths, and the whole life where events do not wait."""
    windows = ["10m", "1h", "1d"] if ahead else ["10m", "1h", "1d", "lifetime"]
    return FeatureView("cards", PAID, "card", [count()], windows=windows, ahead=ahead, dedupe=dedupe)


@given(
    known=st.lists(st.integers(0, 300), max_size=60),
    other=st.integers(0, 20),
    most=st.integers(0, 70),
    ahead=st.sampled_from([None, "30m"]),
    minute=st.integers(0, 400),
)
def test_what_is_left_out_counts_in_no_window_that_is_decided(
    known: list[int], other: int, most: int, ahead: str | None, minute: int
) -> None:
    """However many rows: those that stay are few, and each window that is compared begins after all that is left out can count."""
    cards, moments = view(ahead), [START_MS + minutes * MINUTE_MS for minutes in known]
    rows = pa.table({"key": ["b"] * other + ["a"] * len(known), "known": pa.array([START_MS] * other + moments, pa.int64())})
    found = cuts(cards, rows, ["b", "a"], most)
    cut, at_ms = found["a"], START_MS + minute * MINUTE_MS
    kept = [moment for moment in moments if moment >= cut.known_ms]
    assert len(kept) <= most or cut == WHOLE
    assert sum(len([m for m in each if m >= found[key].known_ms]) for key, each in (("a", moments), ("b", [START_MS] * other))) <= 2 * most
    values = decided(cards, {feature.name: 1.0 for feature in cards.served}, at_ms, cut)
    if cut == WHOLE:
        assert len(values) == len(cards.served)
    for feature in cards.served:
        if cut != WHOLE and feature.name in values:
            begins_ms = at_ms - {"count_10m": 10, "count_1h": 60, "count_1d": 1440}[feature.name] * MINUTE_MS
            first_ms = begins_ms // feature.window.grid.tile_ms * feature.window.grid.tile_ms
            latest = [moment + (30 * MINUTE_MS if ahead else 0) for moment in moments if moment < cut.known_ms]
            assert all(moment < first_ms for moment in latest)
            assert sum(moment < first_ms for moment in kept) >= cards.last_ids


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 90)), max_size=60), st.integers(1, 70))
def test_no_copy_of_what_is_left_out_counts_in_a_window(log: list[tuple[int, int]], most: int) -> None:
    """Records that lag behind their log by any time: those that may repeat one that is left out lie before all windows that are compared."""
    times = list(accumulate((minute for minute, _ in log), max))
    known = [START_MS + (time - lag) * MINUTE_MS for time, (_, lag) in zip(times, log, strict=True)]
    thirds = [(START_MS + time * MINUTE_MS) // 600_000 for time in times]
    log_ms = pa.array([third * 600_000 for third in thirds], pa.int64())
    rows = pa.table({"key": pa.array(["a"] * len(log), pa.string()), "known": pa.array(known, pa.int64()), LOG_TIME: log_ms})
    cut = cuts(view(None, "30m"), rows, ["a"], most)["a"]
    gone = [third for third, moment in zip(thirds, known, strict=True) if moment < cut.known_ms]
    for third, moment in zip(thirds, known, strict=True):
        if moment >= cut.known_ms and moment >= cut.from_ms:
            assert all(abs(third - other) > 3 or third < other for other in gone)


def test_entities_are_read_by_their_cut() -> None:
    """Whole entities are read together."""
    assert by_cut({"a": WHOLE, "b": Cut(5, 9), "c": WHOLE}) == {0: ["a", "c"], 5: ["b"]}


def test_rows_that_nobody_could_decode() -> None:
    """They are known at no moment, and do not count."""
    rows = pa.table({"key": ["a", "a"], "known": pa.array([None, START_MS], pa.int64())})
    assert cuts(view(None), rows, ["a"], 1) == {"a": WHOLE}
