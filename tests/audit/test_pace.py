"""The pace: a share of a processor, and how many rows that allows for."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.errors import SettingsError
from tidemill_audit.pace import LEAST_ROWS, Pace
from tidemill_audit.settings import PaceSettings


def busy(seconds: float) -> None:
    """Uses the processor."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_what_is_used_is_owed() -> None:
    """At a quarter of a processor every second of work owes three of rest, until they are rested."""
    pace = Pace(0.25, 60, 4)
    busy(0.05)
    owed = pace.owed_seconds()
    assert owed >= 0.15
    pace.rest()
    assert pace.owed_seconds() < owed
    pace.rested(60)
    assert pace.owed_seconds() < 0.05


def test_a_whole_processor_owes_nothing() -> None:
    """A share of one is no limit."""
    pace = Pace(1.0, 60, 4)
    busy(0.02)
    assert pace.owed_seconds() == 0


@given(
    st.floats(0.01, 1),
    st.floats(1, 3600),
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(0, 10**7), st.floats(0.001, 100)), max_size=9),
)
def test_rows_follow_the_measurements(share: float, period: float, partitions: int, measured: list[tuple[int, float]]) -> None:
    """Never below the least; a measurement moves the estimate half of the way; one that says nothing changes nothing."""
    pace = Pace(share, period, partitions)
    for rows, seconds in measured:
        before = pace.rows
        pace.learn(rows, seconds)
        assert pace.rows >= LEAST_ROWS
        if rows < LEAST_ROWS:
            assert pace.rows == before
    pace.learn(10**9, 1.0)
    assert pace.rows >= min(10**9 * share * period / partitions / 2, LEAST_ROWS)


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A period is a duration, a share lies between nothing and one; what is wrong is named."""
    assert PaceSettings.load().period_seconds == 300
    monkeypatch.setenv("TIDEMILL_AUDIT_PERIOD", "2s")
    monkeypatch.setenv("TIDEMILL_AUDIT_CPU", "0.5")
    assert (PaceSettings.load().period_seconds, PaceSettings.load().cpu) == (2.0, 0.5)
    for variable, value in (("TIDEMILL_AUDIT_PERIOD", "soon"), ("TIDEMILL_AUDIT_CPU", "0"), ("TIDEMILL_AUDIT_CPU", "2")):
        monkeypatch.setenv(variable, value)
        with pytest.raises(SettingsError, match=variable):
            PaceSettings.load()
        monkeypatch.setenv(variable, "1s" if "PERIOD" in variable else "1")
