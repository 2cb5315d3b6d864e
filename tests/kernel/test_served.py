"""Statuses tell the truth about values, also about those that no double holds."""

from __future__ import annotations

import math

from tidemill import Event, FeatureView, count, mean, sum
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.kernel.served import serve
from tidemill.kernel.view import ViewKernel
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
