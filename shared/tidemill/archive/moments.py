"""The moments that a field of archived events names."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.routing.events import moment
from tidemill.routing.refusals import Refused
from tidemill.timestamps import EARLIEST_MS, LAST_MS


def moments_of(column: pa.ChunkedArray, earliest_ms: int = EARLIEST_MS) -> pa.ChunkedArray:
    """Epoch ms of a column of epoch ms or of RFC 3339 text, as int64; null where an event of today would be refused."""
    if column.type == pa.int64():
        in_range = pc.and_(pc.greater_equal(column, earliest_ms), pc.less_equal(column, LAST_MS))
        return pc.if_else(in_range, column, pa.scalar(None, pa.int64()))
    return pa.chunked_array([pa.array([_moment(text, earliest_ms) for text in column.to_pylist()], pa.int64())])


def _moment(text: str | None, earliest_ms: int) -> int | None:
    try:
        return None if text is None else moment(text, "", earliest_ms)
    except Refused:
        return None
