"""Moments in requests and output: whole epoch milliseconds, or RFC 3339 with an offset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

_EPOCH, _NAIVE_EPOCH = datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1)
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The beginning of the year 1 and the end of the year 9999: what RFC 3339 can say."""

EARLIEST_MS = 365 * 86_400_000
"""1971. Seconds of our time that are taken for milliseconds lie before it, so nobody means an earlier moment unless he says so."""

UNITS = {"d": (86_400_000, 1), "s": (1_000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}
"""In what a time since 1970 may be counted -> how many ms that many units are."""

_WORDS = {"d": "days", "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_LIKELY_MS = range(EARLIEST_MS, 4_102_444_800_000)  # 1971 to 2100


def parse_time_ms(value: int | str, earliest_ms: int = EARLIEST_MS) -> int:
    """Epoch milliseconds of a moment that somebody gives. Raises ValueError for anything else, see `check_moment`."""
    if isinstance(value, int):
        return check_moment(value, earliest_ms)
    try:
        moment = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(
            f"{value!r:.80} is not a moment; write RFC 3339 with an offset, such as 2026-01-31T12:00:00Z, or epoch milliseconds"
        )
    return check_moment((moment - _EPOCH) // timedelta(milliseconds=1), earliest_ms)


def check_moment(time_ms: int, earliest_ms: int = EARLIEST_MS, mend: str = "give milliseconds", unit: str = "ms") -> int:
    """The moment again. Raises ValueError when nobody can mean it: it lies before `earliest_ms` or after the year 9999. It says which unit
    the number may have. `mend`: what to do then, with {unit}; `unit`: in which it was taken to be written."""
    if earliest_ms <= time_ms <= LAST_MS:
        return time_ms
    where = f"is {rfc3339(time_ms)[:10]}" if FIRST_MS <= time_ms <= LAST_MS else "lies outside the years 1 to 9999"
    where += "" if unit == "ms" else f", read as {_WORDS[unit]}"
    if likely := likely_unit(of_ms(time_ms, unit)[0], unit):
        raise ValueError(f"{time_ms} ms {where}: are these {_WORDS[likely]}? {mend.format(unit=likely)}")
    raise ValueError(f"{time_ms} ms {where}" + (f", before {rfc3339(earliest_ms)[:10]}" if FIRST_MS <= time_ms < earliest_ms else ""))


def likely_unit(number: int, other_than: str) -> str | None:
    """The unit in which a number is a moment of our time, if it is another one than was said."""
    return next((unit for unit in UNITS if unit != other_than and to_ms(number, unit) in _LIKELY_MS), None)


def to_ms(number: int, unit: str) -> int:
    """The ms of a number of units; what is finer is cut off."""
    ms, units = UNITS[unit]
    return number * ms // units


def of_ms(time_ms: int, unit: str) -> tuple[int, int]:
    """The whole units in a number of ms, and whether some part of one is left (not 0)."""
    ms, units = UNITS[unit]
    return divmod(time_ms * units, ms)


def rfc3339(time_ms: int) -> str:
    """The moment as RFC 3339 in UTC; with milliseconds unless they are 0. Outside the years 1 to 9999: the nearest of their two ends."""
    clamped = min(max(time_ms, FIRST_MS), LAST_MS)
    return (_NAIVE_EPOCH + timedelta(milliseconds=clamped)).isoformat(timespec="milliseconds" if clamped % 1000 else "seconds") + "Z"
