"""Which moments can be meant, and what is said of others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.timestamps import EARLIEST_MS, FIRST_MS, LAST_MS, check_moment, parse_time_ms, rfc3339

NOW_S = 1_700_000_000


@pytest.mark.parametrize(
    ("time_ms", "told"),
    [
        (NOW_S, "1700000000 ms is 1970-01-20: are these seconds? give milliseconds"),
        (NOW_S * 10**6, "1700000000000000 ms lies outside the years 1 to 9999: are these microseconds? give milliseconds"),
        (NOW_S * 10**9, "are these nanoseconds?"),
        (0, "0 ms is 1970-01-01, before 1971-01-01"),
        (-1, "-1 ms is 1969-12-31, before 1971-01-01"),
        (FIRST_MS - 1, "lies outside the years 1 to 9999"),
        (10**30, "lies outside the years 1 to 9999"),
    ],
)
def test_what_nobody_can_mean(time_ms: int, told: str) -> None:
    """It is refused in words that name the unit that it may have."""
    with pytest.raises(ValueError, match="ms ") as error:
        check_moment(time_ms)
    assert told in str(error.value)
    with pytest.raises(ValueError, match="ms "):
        parse_time_ms(time_ms)


@given(st.integers(EARLIEST_MS, 4_102_444_799_999))
def test_any_moment_of_our_time_in_another_unit_is_told(time_ms: int) -> None:
    """Taken for milliseconds, its seconds lie in the first weeks of 1970, and its micro- and nanoseconds after the year 9999 or out of all bounds."""
    assert check_moment(time_ms) == time_ms
    for number, word in ((time_ms // 1000, "seconds"), (time_ms * 10**6, "nanoseconds")):
        with pytest.raises(ValueError, match=f"are these {word}"):
            check_moment(number)
    if time_ms * 1000 > LAST_MS:
        with pytest.raises(ValueError, match="are these microseconds"):
            check_moment(time_ms * 1000)


@given(st.integers(FIRST_MS, LAST_MS))
def test_who_says_so_may_mean_any_moment(time_ms: int) -> None:
    """Also before 1970, and as text."""
    assert check_moment(time_ms, FIRST_MS) == time_ms
    assert parse_time_ms(rfc3339(time_ms), FIRST_MS) == time_ms


def test_the_advice_is_that_of_the_place() -> None:
    """An event declares its unit, a request gives milliseconds."""
    with pytest.raises(ValueError, match=r'declare unit="us"$'):
        check_moment(NOW_S * 10**6, mend='declare unit="{unit}"')
