"""Moments in requests and output: whole epoch milliseconds, or RFC 3339 with an offset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

_EPOCH, _NAIVE_EPOCH = datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1)
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The beginning of the year 1 and the end of the year 9999: what RFC 3339 can say."""

EARLIEST_MS = 0
"""1970: no moment of an event or of a request is earlier."""

UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def parse_time_ms(value: int | str) -> int:
    """Epoch milliseconds of a moment from 1970 to 9999. Raises ValueError for anything else."""
    if isinstance(value, int):
        return check_moment(value)
    try:
        moment = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(
            f"{value!r:.80} is not a moment; write RFC 3339 with an offset, such as 2026-01-31T12:00:00Z, or epoch milliseconds"
        )
    return check_moment((moment - _EPOCH) // timedelta(milliseconds=1))


def check_moment(time_ms: int, earliest_ms: int | None = EARLIEST_MS) -> int:
    """The moment again. Raises ValueError when nobody can have meant it: it lies before `earliest_ms` (None: before the year 1) or after the
    year 9999. It says which unit the number may have had."""
    if (FIRST_MS if earliest_ms is None else earliest_ms) <= time_ms <= LAST_MS:
        return time_ms
    for unit, word in _OTHER_UNITS:
        meant_ms = time_ms * 1000 // UNITS_PER_SECOND[unit]
        if _LIKELY_MS[0] <= meant_ms < _LIKELY_MS[1]:
            where = rfc3339(time_ms)[:10] if time_ms <= LAST_MS else "after the year 9999"
            raise ValueError(f'{time_ms} ms is {where}: are these {word}? declare unit="{unit}"')
    if time_ms > LAST_MS or time_ms < FIRST_MS:
        raise ValueError(f"{time_ms} ms lies outside the years 1 to 9999")
    raise ValueError(f"{time_ms} ms is {rfc3339(time_ms)}, before {rfc3339(earliest_ms or FIRST_MS)[:10]}")


_OTHER_UNITS = (("s", "seconds"), ("us", "microseconds"), ("ns", "nanoseconds"))
_LIKELY_MS = (31_536_000_000, 4_102_444_800_000)
"""1971 to 2100."""


def rfc3339(time_ms: int) -> str:
    """The moment as RFC 3339 in UTC; with milliseconds unless they are 0. Outside the years 1 to 9999: the nearest of their two ends."""
    clamped = min(max(time_ms, FIRST_MS), LAST_MS)
    return (_NAIVE_EPOCH + timedelta(milliseconds=clamped)).isoformat(timespec="milliseconds" if clamped % 1000 else "seconds") + "Z"
