"""Statuses tell the truth about values, also about those that no double holds."""

from __future__ import annotations

import math

from tidemill import Event, FeatureView, count, mean, sum
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.kernel.served import serve, withheld
from tidemill.kernel.view import Reading, ViewKernel
from tidemill.records import ViewRecord, encode

EVENT = Event("e", {"who": str, "at": int, "x": float | None}, time="at")
VIEW = FeatureView("v", EVENT, "who", [count(), sum("x"), mean("x")], windows=["1h"])
KERNEL = ViewKernel(VIEW)


def served(*values: float | None) -> tuple[list[float], list[str]]:
    """Values and statuses after events with these values of x."""
    decode, states = entry_decoder(VIEW), dict[bytes, EntityState]()
    records = [encode(ViewRecord(i, i, (0, i), {"x": value}, None)) for i, value in enumerate(values)]
    PartitionFold.start(KERNEL).advance([decode(i, b"a", record) for i, record in enumerate(records)], states)
    found = serve(VIEW, KERNEL.read_state(states[b"a"], 100), 100)
    return found.values, [*found.statuses]


def test_a_value_that_is_there() -> None:
    """Counts, sums and means that a double holds are present, with their values."""
    assert served(1.0, 2.0) == ([2.0, 3.0, 1.5], ["PRESENT"] * 3)


def test_a_value_that_is_not_there() -> None:
    """A mean of nothing is null; a count and a sum of nothing are not."""
    values, statuses = served(None)
    assert (values[0], statuses[0]) == (1.0, "PRESENT")
    assert math.isnan(values[2])
    assert statuses[2] == "NULL_VALUE"


def test_a_sum_beyond_a_double() -> None:
    """It is no number that JSON could name, so it is null, and says so."""
    values, statuses = served(1.7e308, 1.7e308)
    assert (values[0], statuses[0]) == (2.0, "PRESENT")
    assert [math.isnan(value) for value in values[1:]] == [True, True]
    assert statuses[1:] == ["NULL_VALUE"] * 2


def test_an_entity_that_nobody_knows() -> None:
    """Every feature says so and has no value, whatever the moment."""
    for reading in (None, Reading([1.0] * 3, None, [True] * 3)):  # unknown, or without an event
        values, statuses, newest_ms, _ = serve(VIEW, reading, 100)
        assert (statuses, newest_ms) == (["NOT_FOUND"] * 3, None)
        assert all(map(math.isnan, values))
        assert len(values) == 3


def test_a_partition_that_is_being_rebuilt() -> None:
    """Every feature of the view is withheld."""
    values, statuses, newest_ms, _ = withheld(VIEW)
    assert (len(values), statuses, newest_ms) == (3, ["INVALID"] * 3, None)
    assert all(map(math.isnan, values))


def test_values_past_their_time() -> None:
    """With a ttl a value is served to the last millisecond of it; then it is expired, and its newest event still told."""
    short = FeatureView("v", EVENT, "who", [count(), sum("x"), mean("x")], windows=["1h"], ttl="1h")
    fresh = serve(short, Reading([1.0, 2.0, 3.0], 500, [True] * 3), 500 + 3_600_000)
    assert (fresh.values, fresh.statuses, fresh.newest_ms) == ([1.0, 2.0, 3.0], ["PRESENT"] * 3, 500)
    values, statuses, newest_ms, _ = serve(short, Reading([1.0, 2.0, 3.0], 500, [True] * 3), 501 + 3_600_000)
    assert (len(values), statuses, newest_ms) == (3, ["OUTSIDE_MAX_AGE"] * 3, 500)
    assert all(map(math.isnan, values))


def test_a_window_that_is_not_whole() -> None:
    """The feature whose window cannot be told is invalid; its neighbours stay."""
    values, statuses, *_ = serve(VIEW, Reading([1.0, 2.0, 3.0], 500, [True, False, True]), 600)
    assert statuses == ["PRESENT", "INVALID", "PRESENT"]
    assert (values[0], math.isnan(values[1]), values[2]) == (1.0, True, 3.0)
