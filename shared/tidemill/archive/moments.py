"""A column of times as epoch milliseconds: whole numbers of a unit, RFC 3339, date and time without an offset, Arrow's timestamps and dates.

What is finer than a millisecond is cut off. A local time (without an offset) is taken in the given time zone. One that comes twice, when
clocks are set back, is the first of the two; one that never comes, when clocks are set forward, is refused.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.cells import Mask, filled
from tidemill.errors import UnusableFile
from tidemill.routing.events import moment
from tidemill.routing.refusals import Reason, Refused
from tidemill.timestamps import LAST_MS

UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_JANUARY_MS = 31 * 86_400_000  # January 1970; the seconds of today lie in it if they are taken for milliseconds
_MS = pa.timestamp("ms", "UTC")
_CLOCK = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_ZONED = _CLOCK + r"(Z|[+-]([01][0-9]|2[0-3]):?[0-5][0-9])$"
_LOCAL = _CLOCK + "$"
_DIGITS = r"^[0-9]{1,18}$"
_LOOSE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)\s*(Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?)?",
    re.IGNORECASE,
)
_NUMERIC = re.compile(r"-?[0-9]+(\.[0-9]*)?")


class TimeRule(NamedTuple):
    """How times without an offset and numbers are read. `unit` None: milliseconds, unless they look like another unit."""

    zone: str = "UTC"
    unit: str | None = None

    def check(self) -> None:
        """Raises UnusableFile when the zone is not known."""
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise UnusableFile(f"{self.zone!r} is no time zone", mend="name one as in America/New_York or UTC") from None


class Moments(NamedTuple):
    """A column of times. `ms`: null where a cell is null or refused; `texts`: those that the event can keep as they stand, null elsewhere;
    `twice`: how many local times came twice; `numbers`: whether the times were numbers."""

    ms: pa.Array
    refused: dict[int, Refused]
    texts: pa.Array | None
    twice: int
    numbers: bool

    def field(self, kind: type) -> pa.Array:
        """The column of a field: epoch ms, or RFC 3339 text."""
        if kind is int:
            return self.ms
        made = rfc3339_texts(self.ms)
        return made if self.texts is None else pc.coalesce(self.texts, made)


def rfc3339_texts(ms: pa.Array) -> pa.Array:
    """As `timestamps.rfc3339` writes them."""
    fine = pc.strftime(ms.cast(_MS), "%Y-%m-%dT%H:%M:%SZ")
    return pc.replace_substring(fine, ".000Z", "Z")


class MomentReader:
    """Reads the times of one column. `name`: the column."""

    def __init__(self, name: str, rule: TimeRule) -> None:
        self.name = name
        self._rule = rule
        self._per_second = UNITS_PER_SECOND[rule.unit or "ms"]

    def read(self, column: pa.Array | list[Any]) -> Moments:
        """A plain column (see `cells.plain`), or values of JSON. Raises UnusableFile when its type can be no time."""
        found = self._read(column)
        ms = pc.fill_null(found.ms, 0).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero((ms < 0) | (ms > LAST_MS)).tolist():
            found.refused[row] = self._out_of_range(int(ms[row]))
        inside = (ms >= 0) & (ms <= LAST_MS)
        return found if inside.all() else found._replace(ms=pc.if_else(pa.array(inside), found.ms, None))

    def check_unit(self, found: Moments) -> None:
        """Raises UnusableFile when all times were numbers that are, taken for milliseconds, in January 1970."""
        if self._rule.unit or not found.numbers or found.ms.null_count == len(found.ms):
            return
        if pc.max(found.ms).as_py() < _JANUARY_MS:
            raise UnusableFile(
                f"column {self.name!r}: {pc.max(found.ms).as_py()} and all times before it would lie in January 1970 as milliseconds",
                mend="pass --unit s if they are seconds, --unit ms if they are what they seem",
            )

    def _read(self, column: pa.Array | list[Any]) -> Moments:
        if isinstance(column, list):
            types = set(map(type, column)) - {type(None)}
            if types == {str}:
                return self._texts(pa.array(column, pa.string()))
            if types == {int} and max(map(abs, filter(None, column)), default=0) < 2**63:
                return self._numbers(pa.array(column, pa.int64()))
            return self._values(column, numbers=bool(types) and types <= {int, float})
        found = column.type
        if pa.types.is_null(found):
            return Moments(pa.nulls(len(column), pa.int64()), {}, None, 0, False)
        if pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found):
            return self._numbers(column)
        if pa.types.is_string(found):
            return self._texts(column)
        if pa.types.is_date(found):
            return self._local(pc.multiply_checked(column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64()), 86_400_000))
        if pa.types.is_timestamp(found):
            ms = self._scaled(column.cast(pa.int64()), UNITS_PER_SECOND[found.unit])
            return self._local(ms) if found.tz is None else Moments(ms, {}, None, 0, False)
        raise UnusableFile(
            f"column {self.name!r} is {found} and can be no time", mend="write a timestamp, RFC 3339 text or epoch milliseconds"
        )

    def _numbers(self, column: pa.Array) -> Moments:
        if pa.types.is_integer(column.type) and not pa.types.is_uint64(column.type):
            return Moments(self._scaled(column.cast(pa.int64()), self._per_second), {}, None, 0, True)
        return self._values(column.to_pylist(), numbers=True)

    def _values(self, values: list[Any], *, numbers: bool) -> Moments:
        """One by one: mixed values of JSON, and numbers that are not whole."""
        found: list[int | None] = []
        refused: dict[int, Refused] = {}
        kept: list[str | None] = []
        for row, value in enumerate(values):
            ms, text = None, None
            if value is not None:
                try:
                    ms, text = self._one(value)
                except Refused as error:
                    refused[row] = error
            found.append(ms)
            kept.append(text)
        return Moments(pa.array(found, pa.int64()), refused, pa.array(kept, pa.string()), 0, numbers)

    def _scaled(self, numbers: pa.Array, per_second: int) -> pa.Array:
        """Numbers of a unit as ms; the nearest end of 64 bits when that is beyond them."""
        values: npt.NDArray[np.int64] = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
        if per_second < 1000:
            factor = 1000 // per_second
            values = np.clip(values, -(2**62) // factor, 2**62 // factor) * factor
        else:
            values = values // (per_second // 1000)
        return pa.array(values, mask=numbers.is_null().to_numpy(zero_copy_only=False))

    def _local(self, ms: pa.Array) -> Moments:
        """Local times, as the ms that a clock in UTC would show at them."""
        if self._rule.zone == "UTC":
            return Moments(ms, {}, None, 0, False)
        values = pc.fill_null(ms, 0).to_numpy(zero_copy_only=False)
        inside = (values >= -86_400_000) & (values <= LAST_MS + 86_400_000)  # other times are refused anyway
        clock = pc.if_else(pa.array(inside), ms, None).cast(pa.timestamp("ms"))
        first = pc.assume_timezone(clock, self._rule.zone, ambiguous="earliest", nonexistent="earliest")
        last = pc.assume_timezone(clock, self._rule.zone, ambiguous="latest", nonexistent="latest")
        unsure = pc.fill_null(pc.not_equal(first, last), False).to_numpy(zero_copy_only=False)
        never = unsure & pc.fill_null(pc.not_equal(pc.local_timestamp(first), clock), False).to_numpy(zero_copy_only=False)
        refused = {
            row: self._never(datetime(1970, 1, 1) + timedelta(milliseconds=int(values[row]))) for row in np.flatnonzero(never).tolist()
        }
        instants = pc.coalesce(first.cast(pa.int64()), ms)
        return Moments(pc.if_else(pa.array(never), None, instants), refused, None, int((unsure & ~never).sum()), False)

    def _texts(self, column: pa.Array) -> Moments:
        """Digits, times with an offset and local times, each in one pass; every other text by itself."""
        digits, zoned, local = (_matches(column, pattern) for pattern in (_DIGITS, _ZONED, _LOCAL))
        ms, twice = pa.nulls(len(column), pa.int64()), 0
        refused: dict[int, Refused] = {}
        if digits.any():
            ms = pc.coalesce(ms, self._scaled(pc.if_else(pa.array(digits), column, None).cast(pa.int64()), self._per_second))
        for mask, kind in ((zoned, pa.timestamp("us", "UTC")), (local, pa.timestamp("us"))):
            try:
                stamps = pc.if_else(pa.array(mask), column, None).cast(kind) if mask.any() else None
            except pa.ArrowInvalid:  # some of them name no day or no hour
                mask[:] = False
                continue
            if stamps is not None:
                found = self._scaled(stamps.cast(pa.int64()), UNITS_PER_SECOND["us"])
                placed = self._local(found) if kind.tz is None else Moments(found, {}, None, 0, False)
                ms, twice = pc.coalesce(ms, placed.ms), twice + placed.twice
                refused |= placed.refused
        kept: dict[int, str] = {}
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        slow = valid & ~(digits | zoned | local)
        rows = iter(np.flatnonzero(slow).tolist())

        def one(text: str) -> int | None:
            row = next(rows)
            found, as_it_stands = self._one(text)
            if as_it_stands is not None:
                kept[row] = as_it_stands
            return found

        cells = filled(ms, slow, column, one)
        texts = pc.if_else(pa.array(zoned | np.isin(np.arange(len(column)), list(kept))), column, None)
        return Moments(cells.values, refused | cells.refused, texts, twice, bool(digits.any()) and bool((digits | ~valid).all()))

    def _one(self, value: Any) -> tuple[int | None, str | None]:
        """The ms of one value, and the value itself when it is a text that the event can keep. Raises Refused."""
        if isinstance(value, str):
            return self._one_text(value.strip())
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
            raise Refused(Reason.WRONG_TYPE, f"{self.name} is {value!r:.80}, no time", self.name)
        return self._one_number(value), None

    def _one_number(self, value: float | Decimal) -> int:
        if not math.isfinite(value):
            raise Refused(Reason.NOT_FINITE, f"{self.name} is {value}", self.name)
        if self._per_second == 1000 and value != value // 1:
            raise Refused(Reason.WRONG_TYPE, f"{self.name} is {value!s:.80}, no whole number of ms", self.name)
        if self._per_second == 1 and isinstance(value, float):
            ms = round(value * 1_000_000) // 1000  # the double nearest to a time in ms may lie below it
        else:
            exact = int(value // 1) if isinstance(value, float) else value
            ms = int(exact * 1000 // self._per_second)
        return self._inside(ms)

    def _one_text(self, text: str) -> tuple[int | None, str | None]:
        if not text:
            return None, None
        if _NUMERIC.fullmatch(text):
            return self._one_number(float(text) if "." in text else int(text)), None
        try:
            return moment(text, self.name), text
        except Refused as error:
            match = _LOOSE.fullmatch(text)
            if match is None:
                raise error from None
        return self._loose(text, *match.groups()), None

    def _loose(self, text: str, day: str, clock: str | None, offset: str | None) -> int:
        """A time as databases and spreadsheets write it: without seconds, with a short offset, or a day alone."""
        try:
            when = datetime.fromisoformat(f"{day}T{clock or '00:00'}")
        except ValueError:
            raise Refused(Reason.BAD_TIME, f"{self.name} is {text!r}: there is no such day or hour", self.name) from None
        if offset is None:
            local = when.replace(tzinfo=self._zone)
            if local.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) != when:
                raise self._never(when)
            when = local
        else:
            when = when.replace(tzinfo=_offset(offset))
        return self._inside((when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))

    def _inside(self, ms: int) -> int:
        if not 0 <= ms <= LAST_MS:
            raise self._out_of_range(ms)
        return ms

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self._rule.zone)

    def _never(self, when: datetime) -> Refused:
        return Refused(
            Reason.BAD_TIME, f"{self.name} is {when}, which no clock in {self._rule.zone} showed (they were set forward)", self.name
        )

    def _out_of_range(self, ms: int) -> Refused:
        unit = next((unit for unit, most in (("us", 2.6e17), ("ns", 2.6e20)) if LAST_MS < ms < most), None)
        hint = f"; if it is in {unit}, pass --unit {unit}" if unit and self._rule.unit is None else ""
        return Refused(Reason.BAD_TIME, f"{self.name} is {ms} ms, outside the years 1970 to 9999{hint}", self.name)


def _matches(column: pa.Array, pattern: str) -> Mask:
    found: Mask = pc.fill_null(pc.match_substring_regex(column, pattern), False).to_numpy(zero_copy_only=False).copy()
    return found


def _offset(text: str) -> timezone:
    if text.upper() in ("Z", "UTC", "GMT"):
        return UTC
    digits = text[1:].replace(":", "")
    return timezone((-1 if text[0] == "-" else 1) * timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0)))
