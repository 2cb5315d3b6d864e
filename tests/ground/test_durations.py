"""Durations as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.durations import UNITS_MS, format_ms, parse_ms


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1ms", 1), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000), (" 5 m ", 300_000), ("007d", 604_800_000)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: int) -> None:
    """Milliseconds of each unit, with or without blanks."""
    assert parse_ms(text) == expected


@pytest.mark.parametrize("text", ["", "5", "m", "0h", "-1h", "1.5h", "1h30m", "1 hour", "1H", "5 m m", 5, None, "٣d x"])
def test_anything_else_is_refused(text: Any) -> None:
    """The message shows what came and what may be written."""
    with pytest.raises(ValueError, match='such as "30s", "5m", "24h" or "7d"'):
        parse_ms(text)


@given(st.integers(1, 10**12))
def test_writing_is_exact(duration_ms: int) -> None:
    """What is written reads back as the same number."""
    assert parse_ms(format_ms(duration_ms)) == duration_ms


@given(st.integers(1, 23), st.sampled_from(list(UNITS_MS)))
def test_writing_is_short(number: int, unit: str) -> None:
    """A whole number of a unit is written in that unit, below the next larger one."""
    assert format_ms(number * UNITS_MS[unit]) == f"{number}{unit}"
