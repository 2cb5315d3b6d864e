"""Moments in requests and output: whole epoch milliseconds, or RFC 3339 with an offset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

_EPOCH, _NAIVE_EPOCH = datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1)
LAST_MS = 253_402_300_799_999
"""The end of the year 9999, the last year of RFC 3339. The first moment is the beginning of 1970, from which tiles are counted."""


def parse_time_ms(value: int | str) -> int:
    """Epoch milliseconds of a moment from 1970 to 9999. Raises ValueError for anything else."""
    if isinstance(value, str):
        try:
            moment = msgspec.convert(value, datetime)
        except msgspec.ValidationError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise ValueError(
                f"{value!r:.80} is not a moment; write RFC 3339 with an offset, such as 2026-01-31T12:00:00Z, or epoch milliseconds"
            )
        value = (moment - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= value <= LAST_MS:
        raise ValueError(f"{value} is not a moment in epoch milliseconds; the years 1970 to 9999 are understood")
    return value


def rfc3339(time_ms: int) -> str:
    """The moment as RFC 3339 in UTC; with milliseconds unless they are 0. Outside the years 1970 to 9999: the nearest of their two ends."""
    clamped = min(max(time_ms, 0), LAST_MS)
    return (_NAIVE_EPOCH + timedelta(milliseconds=clamped)).isoformat(timespec="milliseconds" if clamped % 1000 else "seconds") + "Z"
