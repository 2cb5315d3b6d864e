"""The cells of a file's column as values of a declared type, whole columns at a time.

A cell is *plain* when its value is certain: it is cast with its column. Every other cell is given to the live path as the JSON that it
stands for (`json_cell`), and is taken or refused there. So no rule about what an event may carry is written a second time here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ARROW

Mask = npt.NDArray[np.bool_]

_WHOLE = r"^-?[0-9]{1,18}$"
_WHOLE_AS_DOUBLE = r"^-?[0-9]{1,15}\.0*$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_PARTS = re.compile(r"([+-]?)([0-9]*)\.?([0-9]*)([eE][+-]?[0-9]+)?")
_IS_NUMBER = re.compile(_NUMBER)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_EXACT = 2**53


class Cells(NamedTuple):
    """A column as a type. `values`: null where a cell is null or not plain; `plain`: which cells are, nulls included."""

    values: pa.Array
    plain: Mask


def bare(column: pa.Array, nulls: Sequence[str]) -> Cells:
    """A column without its coding: dictionaries and views resolved, the texts `nulls` as null. Bytes that are not UTF-8 are not plain."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column, pa.RunEndEncodedArray):
        column = pc.run_end_decode(column)
    good = np.ones(len(column), bool)
    if pa.types.is_binary(column.type):
        try:
            column = column.cast(pa.string())
        except pa.ArrowInvalid:
            texts = [None if value is None else value.decode(errors="replace") for value in column.to_pylist()]
            decoded = pa.array(texts, pa.string())
            good = mask_of(pc.equal(decoded.cast(pa.binary()), column), null=True)
            column = pc.if_else(pa.array(good), decoded, None)
    elif pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    if nulls and pa.types.is_string(column.type):
        column = pc.if_else(pc.is_in(column, pa.array(nulls, pa.string())), None, column)
    elif "NaN" in nulls and pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    return Cells(column, good)


def typed(column: pa.Array, kind: type) -> Cells | None:
    """A bare column as a declared type; None when its own type can never be that."""
    found, target = column.type, ARROW[kind]
    if pa.types.is_null(found) or found == target:
        return _checked_double(column) if found == pa.float64() else Cells(column.cast(target), np.ones(len(column), bool))
    if pa.types.is_string(found):
        return _from_text(column, kind)
    if kind is str:
        there = pa.types.is_integer(found) or pa.types.is_time(found)
        return Cells(column.cast(target), np.ones(len(column), bool)) if there else None
    if pa.types.is_integer(found):
        return _from_whole(column, kind)
    if pa.types.is_floating(found) and kind is not bool:
        return _checked_double(column.cast(pa.float64())) if kind is float else _double_to_int(column.cast(pa.float64()))
    return None


def mask_of(mask: pa.Array, *, null: bool) -> Mask:
    """A column of truth values as a mask. `null`: what a null is."""
    found: Mask = pc.fill_null(mask, null).to_numpy(zero_copy_only=False).copy()
    return found


def only(column: pa.Array, mask: Mask) -> pa.Array:
    """The column, null where the mask is false."""
    return column if mask.all() else pc.if_else(pa.array(mask), column, None)


def _from_text(column: pa.Array, kind: type) -> Cells:
    if kind is bool:
        lower = pc.utf8_lower(column)
        plain = mask_of(pc.is_in(lower, pa.array(list(_TRUTH))), null=False) | mask_of(column.is_null(), null=True)
        return Cells(only(pc.is_in(lower, pa.array([text for text, truth in _TRUTH.items() if truth])), plain & ~_nulls(column)), plain)
    if kind is float:
        plain = mask_of(pc.match_substring_regex(column, _NUMBER), null=True)
        found = _checked_double(only(column, plain).cast(pa.float64()))
        return Cells(found.values, plain & found.plain)
    plain = mask_of(pc.match_substring_regex(column, _WHOLE), null=True)
    values = only(column, plain).cast(pa.int64())
    if not plain.all():  # as programs write whole numbers of a column that has nulls
        more = ~plain & mask_of(pc.match_substring_regex(column, _WHOLE_AS_DOUBLE), null=False)
        values, plain = pc.coalesce(values, only(column, more).cast(pa.float64()).cast(pa.int64())), plain | more
    return Cells(values, plain)


def _from_whole(column: pa.Array, kind: type) -> Cells:
    if kind is float:
        return Cells(column.cast(pa.float64(), safe=False), np.ones(len(column), bool))  # as JSON is read: the nearest double
    if kind is bool:
        plain = mask_of(pc.is_in(column, pa.array([0, 1], column.type)), null=False) | _nulls(column)
        return Cells(only(column, plain).cast(pa.bool_()), plain)
    unsigned = pa.types.is_uint64(column.type)
    plain = mask_of(pc.less_equal(column, pa.scalar(2**63 - 1, pa.uint64())), null=True) if unsigned else np.ones(len(column), bool)
    return Cells(only(column, plain).cast(pa.int64()), plain)


def _checked_double(column: pa.Array) -> Cells:
    plain = mask_of(pc.is_finite(column), null=True)
    return Cells(only(column, plain), plain)


def _double_to_int(column: pa.Array) -> Cells:
    numbers = pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False)
    plain = (np.abs(numbers) < _EXACT) & (numbers == np.floor(numbers))
    return Cells(only(column, plain).cast(pa.int64()), plain)


def _nulls(column: pa.Array) -> Mask:
    return mask_of(column.is_null(), null=True)


def json_cell(value: Any, kind: type) -> Any:
    """What a cell stands for in JSON, for the declared type. A text that is no such value stays a text, which the live path refuses."""
    if isinstance(value, float) and not math.isfinite(value):
        return msgspec.Raw(_constant(repr(value)))
    if not isinstance(value, str) or kind is str:
        return value
    text = value.strip()
    if not text:
        return None
    if kind is bool:
        return _TRUTH.get(text.lower(), value)
    if _NOT_FINITE.fullmatch(text):
        return msgspec.Raw(_constant(text))
    return msgspec.Raw(_json_number(text)) if _IS_NUMBER.match(text) else value


def number_of_text(text: str) -> int | float | Decimal | None:
    """The number that a text states; None when it states none."""
    if not _IS_NUMBER.match(text):
        return None
    exact = Decimal(text)
    return int(exact) if exact == exact.to_integral_value() and abs(exact) < 10**20 else exact


def _constant(text: str) -> bytes:
    """As JSON of other programs has it; no JSON at all, so it is refused as what it is."""
    if "nan" in text.lower():
        return b"NaN"
    return b"-Infinity" if text.startswith("-") else b"Infinity"


def _json_number(text: str) -> bytes:
    """JSON has no +, no zeros in front, and digits on both sides of a point."""
    match = _PARTS.fullmatch(text)
    assert match is not None
    sign, whole, fraction, exponent = match.groups(default="")
    point = f".{fraction}" if fraction else ""
    return f"{'-' * (sign == '-')}{whole.lstrip('0') or '0'}{point}{exponent}".encode()
