"""What rows of a file carry beyond the declared fields, as JSON objects, whole columns at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.cells import mask_of

_JSON = msgspec.json.Encoder(decimal_format="number")
_ESCAPED = r'["\\\x00-\x1f]'


def objects(columns: Mapping[str, pa.Array], length: int) -> pa.Array:
    """One JSON object a row, without the nulls; null where nothing is left."""
    if not columns:
        return pa.nulls(length, pa.string())
    members = [
        pc.fill_null(pc.binary_join_element_wise("," + _JSON.encode(name).decode() + ":", _tokens(column), ""), "")
        for name, column in columns.items()
    ]
    joined = pc.binary_join_element_wise(*members, "")
    inner = pc.utf8_slice_codeunits(joined, 1)
    return pc.if_else(pc.equal(joined, ""), None, pc.binary_join_element_wise("{", inner, "}", ""))


def _tokens(column: pa.Array) -> pa.Array:
    """The JSON of each cell; null for a null and for a number that JSON does not have."""
    found = column.type
    if pa.types.is_null(found):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_floating(found):
        return pc.if_else(pc.is_finite(column), column.cast(pa.float64()).cast(pa.string()), None)
    if pa.types.is_integer(found) or pa.types.is_boolean(found):
        return column.cast(pa.string())
    if pa.types.is_timestamp(found):
        zone = "Z" if found.tz else ""
        column = pc.strftime(column.cast(pa.timestamp(found.unit, "UTC")) if zone else column, f"%Y-%m-%dT%H:%M:%S{zone}")
    elif pa.types.is_date(found) or pa.types.is_time(found):
        column = column.cast(pa.string())
    elif pa.types.is_duration(found):
        return column.cast(pa.int64()).cast(pa.string())
    if not pa.types.is_string(column.type):
        return pa.array([_token(value) for value in column.to_pylist()], pa.string())
    quoted = pc.binary_join_element_wise('"', column, '"', "")
    odd = mask_of(pc.match_substring_regex(column, _ESCAPED), null=False)
    if not odd.any():
        return quoted
    return pc.replace_with_mask(
        quoted, pa.array(odd), pa.array([_token(text) for text in column.filter(pa.array(odd)).to_pylist()], pa.string())
    )


def _token(value: Any) -> str | None:
    return None if value is None else _JSON.encode(value).decode()
