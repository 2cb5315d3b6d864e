"""One column of a file as the type that an event declares: exact or lossless, or the cell is refused.

Text (of CSV and of text columns elsewhere) is read as the declared type: `300.0` is the whole number 300, `300.5` is none; true, false, t,
f, 1 and 0 are truth values; an empty text is null, but for a field of text. Values that have a type already keep their value or are
refused; a type that can never be the declared one makes the whole file unusable.

Each conversion is a vectorised one for the cells that a mask or a pattern finds plain, and a function of one value, `Refused` included,
for all others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ARROW
from tidemill.errors import UnusableFile
from tidemill.routing.refusals import Reason, Refused

Mask = npt.NDArray[np.bool_]
INT64 = range(-(2**63), 2**63)

_WHOLE = r"^[+-]?[0-9]{1,18}$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_NUMBER_PATTERN = re.compile(_NUMBER)
_TRUE, _FALSE = {"true", "t", "1"}, {"false", "f", "0"}
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
_NO_VALUE = {"null", "none", "na", "n/a", "\\n", "-", "?"}


class Cells(NamedTuple):
    """A column. `values`: null where a cell is null or refused; `refused`: the row of each refused cell, and why."""

    values: pa.Array
    refused: dict[int, Refused]


def filled(fast: pa.Array, slow: Mask, originals: pa.Array, one: Callable[[Any], Any]) -> Cells:
    """`fast`, and where the mask says so `one(original)`. `originals` are not null there."""
    rows = np.flatnonzero(slow)
    if not len(rows):
        return Cells(fast, {})
    found: list[Any] = []
    refused: dict[int, Refused] = {}
    for row, value in zip(rows.tolist(), originals.take(pa.array(rows)).to_pylist(), strict=True):
        try:
            found.append(one(value))
        except Refused as error:
            refused[row] = error
            found.append(None)
    return Cells(pc.replace_with_mask(fast, pa.array(slow), pa.array(found, fast.type)), refused)


def plain(column: pa.Array, nulls: Sequence[str], name: str) -> Cells:
    """A column without its coding: dictionaries and views resolved, bytes of text files as text, the texts `nulls` as null."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column, pa.RunEndEncodedArray):
        column = pc.run_end_decode(column)
    refused: dict[int, Refused] = {}
    if pa.types.is_binary(column.type):
        column, refused = _decoded(column, name)
    elif pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    if nulls and pa.types.is_string(column.type):
        column = pc.if_else(pc.is_in(column, pa.array(nulls, pa.string())), None, column)
    elif "NaN" in nulls and pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    return Cells(column, refused)


def _decoded(column: pa.Array, name: str) -> Cells:
    try:
        return Cells(column.cast(pa.string()), {})
    except pa.ArrowInvalid:
        return filled(pa.nulls(len(column), pa.string()), _bools(column.is_valid()), column, lambda value: _utf8(value, name))


def _utf8(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        shown = value[:40].decode("latin-1")
        raise Refused(Reason.WRONG_TYPE, f"{name} is not UTF-8 ({shown!r} if it is Latin-1): save the file as UTF-8", name) from None


def converted(column: pa.Array, name: str, kind: type) -> Cells:
    """A plain column as the type of a field. Raises UnusableFile when its type can never be that."""
    found = column.type
    if pa.types.is_null(found):
        return Cells(pa.nulls(len(column), ARROW[kind]), {})
    if pa.types.is_decimal(found):
        column, found = column.cast(pa.string()), pa.string()
    rule = _RULES.get((_family(found), kind))
    if rule is None:
        raise UnusableFile(
            f"column {name!r} is {found}, the event declares {kind.__name__}", mend=_MENDS.get(_family(found), "write it as another type")
        )
    return rule(column, name)


def _family(found: pa.DataType) -> str:
    for family, of_it in _FAMILIES.items():
        if of_it(found):
            return family
    return "other"


_FAMILIES: dict[str, Callable[[pa.DataType], bool]] = {
    "text": pa.types.is_string,
    "whole": pa.types.is_integer,
    "double": pa.types.is_floating,
    "truth": pa.types.is_boolean,
    "time": pa.types.is_time,
    "bytes": lambda found: pa.types.is_fixed_size_binary(found) or pa.types.is_large_binary(found) or pa.types.is_binary_view(found),
}
_MENDS = {
    "double": "write it as text or as whole numbers: 300 and 300.0 would be two texts",
    "truth": "declare it bool, or write it as the declared type",
    "bytes": "write it as text",
    "time": "declare it str, or write a number",
}


def _bools(mask: pa.Array) -> Mask:
    found: Mask = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return found


def _where(column: pa.Array, mask: Mask) -> pa.Array:
    """The column, null where the mask is false."""
    return column if mask.all() else pc.if_else(pa.array(mask), column, None)


def _by_mask(column: pa.Array, fast: Mask, target: pa.DataType, one: Callable[[Any], Any]) -> Cells:
    """Casts the cells of the mask; `one` decides about the others that are not null."""
    slow = _bools(column.is_valid()) & ~fast
    return filled(_where(column, fast).cast(target, safe=False), slow, column, one)


def _text_to_int(column: pa.Array, name: str) -> Cells:
    return _by_mask(column, _bools(pc.match_substring_regex(column, _WHOLE)), pa.int64(), lambda text: _whole(text, name))


def _whole(text: str, name: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    number = _number(text, name, "whole number")
    if number != number.to_integral_value():
        raise Refused(Reason.WRONG_TYPE, f"{name} is {text!r:.80}, no whole number", name)
    if not -(2**63) <= number < 2**63:
        raise Refused(Reason.OUT_OF_RANGE, f"{name} is {text!r:.80}, beyond 64 bits", name)
    return int(number)


def _text_to_float(column: pa.Array, name: str) -> Cells:
    cells = _by_mask(column, _bools(pc.match_substring_regex(column, _NUMBER)), pa.float64(), lambda text: _double(text, name))
    beyond = _bools(pc.invert(pc.is_finite(cells.values)))
    for row in np.flatnonzero(beyond).tolist():
        cells.refused[row] = Refused(Reason.OUT_OF_RANGE, f"{name} is {column[row].as_py()!r:.80}, beyond a double", name)
    return Cells(_where(cells.values, ~beyond), cells.refused)


def _double(text: str, name: str) -> float | None:
    text = text.strip()
    return float(_number(text, name, "number")) if text else None


def _number(text: str, name: str, wanted: str) -> Decimal:
    """The number that a text states. Raises Refused, which says what the text seems to be."""
    if _NUMBER_PATTERN.match(text):
        try:
            return Decimal(text)
        except InvalidOperation:
            pass
    if _NOT_FINITE.fullmatch(text):
        hint = "; if it means that there is no value, pass --null " + text if "nan" in text.lower() else ""
        raise Refused(Reason.NOT_FINITE, f"{name} is {text}{hint}", name)
    hint = ""
    if _THOUSANDS.fullmatch(text):
        hint = ": write it without separators of thousands"
    elif text.lower() in _NO_VALUE:
        hint = f"; if it means that there is no value, pass --null '{text}'"
    elif _NUMBER_PATTERN.match(text.replace(",", ".", 1)):
        hint = ": write a decimal point"
    raise Refused(Reason.WRONG_TYPE, f"{name} is {text!r:.80}, no {wanted}{hint}", name)


def _text_to_bool(column: pa.Array, name: str) -> Cells:
    lower = pc.utf8_lower(column)
    true, false = (_bools(pc.is_in(lower, pa.array(sorted(words)))) for words in (_TRUE, _FALSE))
    fast = pc.if_else(pa.array(true | false), pa.array(true), None)
    return filled(fast, _bools(column.is_valid()) & ~(true | false), column, lambda text: _truth(text, name))


def _truth(text: str, name: str) -> bool | None:
    word = text.strip().lower()
    if not word:
        return None
    if word in _TRUE | _FALSE:
        return word in _TRUE
    hint = f"; if it means that there is no value, pass --null '{text}'" if word in _NO_VALUE | {"nan"} else ""
    raise Refused(Reason.WRONG_TYPE, f"{name} is {text!r:.80}, neither true nor false{hint}", name)


def _int_to_int(column: pa.Array, name: str) -> Cells:
    if not pa.types.is_uint64(column.type):
        return Cells(column.cast(pa.int64()), {})
    fast = _bools(pc.less_equal(column, pa.scalar(2**63 - 1, pa.uint64())))
    return _by_mask(column, fast, pa.int64(), lambda value: _whole(str(value), name))


def _int_to_float(column: pa.Array, _name: str) -> Cells:
    return Cells(column.cast(pa.float64(), safe=False), {})  # as JSON is read: the nearest double


def _int_to_bool(column: pa.Array, name: str) -> Cells:
    return _by_mask(column, _bools(pc.is_in(column, pa.array([0, 1], column.type))), pa.bool_(), lambda value: _truth(str(value), name))


def _float_to_float(column: pa.Array, name: str) -> Cells:
    column = column.cast(pa.float64())
    return _by_mask(column, _bools(pc.is_finite(column)), pa.float64(), lambda value: _double(repr(value), name))


def _float_to_int(column: pa.Array, name: str) -> Cells:
    column = column.cast(pa.float64())
    numbers = pc.fill_null(column, math.nan).to_numpy(zero_copy_only=False)
    fast = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**63)
    return _by_mask(column, fast, pa.int64(), lambda value: _whole(repr(value), name))


def _to_text(column: pa.Array, _name: str) -> Cells:
    return Cells(column.cast(pa.string()), {})


def _same(column: pa.Array, _name: str) -> Cells:
    return Cells(column, {})


_RULES: dict[tuple[str, type], Callable[[pa.Array, str], Cells]] = {
    ("text", str): _same,
    ("text", int): _text_to_int,
    ("text", float): _text_to_float,
    ("text", bool): _text_to_bool,
    ("whole", str): _to_text,
    ("whole", int): _int_to_int,
    ("whole", float): _int_to_float,
    ("whole", bool): _int_to_bool,
    ("double", float): _float_to_float,
    ("double", int): _float_to_int,
    ("truth", bool): _same,
    ("time", str): _to_text,
}

_JSON_TYPES: dict[type, set[type]] = {str: {str}, int: {int}, float: {int, float}, bool: {bool}}


def from_json(values: list[Any], name: str, kind: type) -> Cells:
    """Decoded JSON values as the type of a field. A whole float is a whole number; nothing else is taken for another type."""
    types = set(map(type, values)) - {type(None)}
    if types <= _JSON_TYPES[kind]:
        try:
            if int in types and kind is float:
                values = [None if value is None else float(value) for value in values]
            return Cells(pa.array(values, ARROW[kind]), {})
        except OverflowError:
            pass  # some number is beyond 64 bits or a double
    found: list[Any] = []
    refused: dict[int, Refused] = {}
    for row, value in enumerate(values):
        try:
            found.append(None if value is None else _json_value(value, name, kind))
        except Refused as error:
            refused[row] = error
            found.append(None)
    return Cells(pa.array(found, ARROW[kind]), refused)


def _json_value(value: Any, name: str, kind: type) -> Any:
    if kind is int and type(value) is float and value.is_integer():
        value = int(value)
    try:
        found: Any = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Refused(Reason.WRONG_TYPE, f"{name}: {error}", name) from None
    except OverflowError:
        raise Refused(Reason.OUT_OF_RANGE, f"{name} is beyond a double", name) from None
    if kind is int and found not in INT64:
        raise Refused(Reason.OUT_OF_RANGE, f"{name} is {found}, beyond 64 bits", name)
    return found
