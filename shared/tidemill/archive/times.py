"""Columns of times: whole numbers of a unit, RFC 3339, date and time without an offset, Arrow's timestamps and dates.

What is finer than a millisecond is cut off. A local time (without an offset) is taken in the given time zone. One that comes twice, when
clocks are set back, is the first of the two; one that never comes, when clocks are set forward, is refused. As in `cells`, what is not
plain is decided one by one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.cells import Mask, mask_of, number_of_text, only
from tidemill.errors import UnusableFile
from tidemill.routing.refusals import Reason, Refused
from tidemill.timestamps import EARLIEST_MS, FIRST_MS, LAST_MS, UNITS, rfc3339

_CLOCK = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_ZONED = _CLOCK + r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
_LOCAL = _CLOCK + "$"
_DIGITS = r"^[0-9]{1,18}$"
_LOOSE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)\s*(Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?)?",
    re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class TimeRule(NamedTuple):
    """How times without an offset and numbers are read. `unit` None: milliseconds, unless they look like another unit."""

    zone: str = "UTC"
    unit: str | None = None


class Moments(NamedTuple):
    """A column of times. `ms`: null where a cell is null or not plain; `kept`: texts that an event can keep as they stand, null elsewhere;
    `numbers`: whether all times are numbers."""

    ms: pa.Array
    plain: Mask
    kept: pa.Array
    numbers: bool

    def field(self, kind: type) -> pa.Array:
        """The column of a field: epoch ms, or RFC 3339 text."""
        if kind is int:
            return self.ms
        return self.kept if self.kept.null_count == self.ms.null_count else pc.coalesce(self.kept, _rfc3339_texts(self.ms))


class Times:
    """Reads times by a rule. Raises UnusableFile when its time zone is not known."""

    def __init__(self, rule: TimeRule, earliest_ms: int = EARLIEST_MS) -> None:
        try:
            self._zone = ZoneInfo(rule.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise UnusableFile(f"{rule.zone!r} is no time zone", mend="name one as in America/New_York or UTC") from None
        self._rule, self._earliest_ms = rule, earliest_ms
        self._unit = rule.unit or "ms"

    def of(self, unit: str | None) -> Times:
        """The same, for a field whose declaration says the unit of its numbers. An option of the file says more."""
        return self if unit is None or self._rule.unit else Times(self._rule._replace(unit=unit), self._earliest_ms)

    def read(self, column: pa.Array, name: str) -> Moments:
        """The times of a bare column. Raises UnusableFile when its type can be no time."""
        found, kept, numbers = column.type, pa.nulls(len(column), pa.string()), False
        if pa.types.is_integer(found):
            ms, numbers = self._scaled(column.cast(pa.int64(), safe=False), self._unit), True
        elif pa.types.is_string(found):
            ms, kept, numbers = self._texts(column)
        elif pa.types.is_date(found):
            ms = self._local(self._scaled(column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64()), "d"))
        elif pa.types.is_timestamp(found):
            ms = self._scaled(column.cast(pa.int64()), found.unit)
            ms = self._local(ms) if found.tz is None else ms
        elif pa.types.is_floating(found) or pa.types.is_null(found):
            ms = pa.nulls(len(column), pa.int64())
        else:
            raise UnusableFile(
                f"column {name!r} is {found} and can be no time", mend="write a timestamp, RFC 3339 text or epoch milliseconds"
            )
        ms = only(ms, mask_of(pc.and_(pc.greater_equal(ms, self._earliest_ms), pc.less_equal(ms, LAST_MS)), null=True))
        return Moments(ms, mask_of(pc.or_(ms.is_valid(), column.is_null()), null=True), kept, numbers)

    def check_unit(self, moments: Moments, name: str) -> None:
        """Raises UnusableFile when all times are numbers that, taken for milliseconds, nobody can mean."""
        if self._rule.unit or not moments.numbers or not len(moments.ms):
            return
        if not moments.plain.any():
            raise UnusableFile(
                f"column {name!r}: none of the times can be one in milliseconds", mend="pass --unit d, --unit s, --unit us or --unit ns"
            )

    def one(self, value: Any, name: str) -> tuple[Any, int | None]:
        """One time of any kind: what an event can carry, and its ms. A value that is no time comes back as it is, without ms, for the live
        path to refuse. Raises Refused for a local time that no clock showed."""
        if isinstance(value, str):
            text = value.strip()
            if (number := number_of_text(text)) is not None:
                ms = self._of_number(number)
                return (value, None) if ms is None else (ms, ms)
            return self._of_text(text, value, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            ms = self._of_number(value)
            return (value, None) if ms is None else (ms, ms)
        return value, None

    def field(self, value: Any, name: str, kind: type) -> tuple[Any, int | None]:
        """The same, as the declared type of the field: whole ms or text."""
        found, ms = self.one(value, name)
        if ms is None or not FIRST_MS <= ms <= LAST_MS:
            return found if kind is int or isinstance(found, str) else str(value), None
        if kind is int:
            return ms, ms
        return found if isinstance(found, str) else rfc3339(ms), ms

    def _of_number(self, number: int | float | Decimal) -> int | None:
        """None when it is no number of the unit, where ms are whole, or far beyond all times."""
        if not -(10**25) < number < 10**25 or (self._unit == "ms" and number != number // 1):
            return None
        ms, units = UNITS[self._unit]
        if ms > 1 and isinstance(number, float):
            return round(number * (ms * 1000)) // 1000  # the double nearest to a time in ms may lie below it
        exact = int(number // 1) if isinstance(number, float) else number
        return int(exact * ms // units)

    def _of_text(self, text: str, value: str, name: str) -> tuple[str | int | None, int | None]:
        if not text:
            return None, None
        try:
            when = msgspec.convert(text, datetime)
        except msgspec.ValidationError:
            when = None
        if when is not None and when.tzinfo is not None:
            return text, (when - _EPOCH) // _MILLISECOND
        match = _LOOSE.fullmatch(text)
        if match is None:
            return value, None
        day, clock, offset = match.groups()
        try:
            when = datetime.fromisoformat(f"{day}T{clock or '00:00'}" + _offset(offset))
        except ValueError:
            return value, None
        if when.tzinfo is None:
            local = when.replace(tzinfo=self._zone)
            if local.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) != when:
                said = f"{name} is {when}, which no clock in {self._rule.zone} showed: they were set forward"
                raise Refused(Reason.BAD_TIME, said, name)
            when = local
        ms = (when - _EPOCH) // _MILLISECOND
        return ms, ms

    def _scaled(self, numbers: pa.Array, unit: str) -> pa.Array:
        """Numbers of a unit as ms; the nearest end of 64 bits when that is beyond them."""
        values, (ms, units) = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False), UNITS[unit]
        values = np.clip(values, -(2**62) // ms, 2**62 // ms) * ms if ms > 1 else values // units
        return pa.array(values, mask=mask_of(numbers.is_null(), null=True))

    def _local(self, ms: pa.Array) -> pa.Array:
        """Moments of what a clock showed, given as the ms at which a clock in UTC shows it; null where no clock did."""
        if self._rule.zone == "UTC":
            return ms
        inside = mask_of(pc.and_(pc.greater_equal(ms, -86_400_000), pc.less_equal(ms, LAST_MS + 86_400_000)), null=True)
        clock = only(ms, inside).cast(pa.timestamp("ms"))
        moment = pc.assume_timezone(clock, self._rule.zone, ambiguous="earliest", nonexistent="earliest")
        return only(moment.cast(pa.int64()), mask_of(pc.equal(pc.local_timestamp(moment), clock), null=True))

    def _texts(self, column: pa.Array) -> tuple[pa.Array, pa.Array, bool]:
        """Digits, times with an offset and local times, each in one pass."""
        digits, zoned, local = (mask_of(pc.match_substring_regex(column, pattern), null=False) for pattern in (_DIGITS, _ZONED, _LOCAL))
        ms = self._scaled(only(column, digits).cast(pa.int64()), self._unit)
        for mask, kind in ((zoned, pa.timestamp("us", "UTC")), (local, pa.timestamp("us"))):
            try:
                stamps = self._scaled(only(column, mask).cast(kind).cast(pa.int64()), "us")
            except pa.ArrowInvalid:  # some of them name no day or no hour
                continue
            ms = pc.coalesce(ms, self._local(stamps) if kind.tz is None else stamps)
        return ms, only(column, zoned), bool(digits.any()) and bool((digits | mask_of(column.is_null(), null=True)).all())


def _rfc3339_texts(ms: pa.Array) -> pa.Array:
    """As `timestamps.rfc3339` writes them: day, time of the day and milliseconds are looked up, since writing each one takes a microsecond."""
    values = pc.fill_null(ms, 0).to_numpy(zero_copy_only=False)
    days, days_of = np.unique(values // 86_400_000, return_inverse=True)
    parts = [
        pa.array(np.datetime_as_string(days.astype("datetime64[D]"))).take(pa.array(days_of)),
        _clocks().take(pa.array(values // 1000 % 86_400)),
        _fractions().take(pa.array(values % 1000)),
    ]
    return only(pc.binary_join_element_wise(*parts, ""), mask_of(ms.is_valid(), null=False))


@cache
def _clocks() -> pa.Array:
    return pa.array([f"T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}" for second in range(86_400)])


@cache
def _fractions() -> pa.Array:
    return pa.array(["Z", *(f".{ms:03}Z" for ms in range(1, 1000))])


def _offset(text: str | None) -> str:
    """An offset as RFC 3339 has it; nothing for none."""
    if text is None:
        return ""
    if text.upper() in ("Z", "UTC", "GMT"):
        return "+00:00"
    digits = text[1:].replace(":", "").ljust(4, "0")
    return f"{text[0]}{digits[:2]}:{digits[2:]}"
