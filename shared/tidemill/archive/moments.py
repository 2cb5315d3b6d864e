"""The moments that a field of archived events names."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.routing.events import moment
from tidemill.routing.refusals import Refused
from tidemill.timestamps import LAST_MS


def moments_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Epoch ms of a column of epoch ms or of RFC 3339 text, as int64; null where an event of today would be refused."""
    if column.type == pa.int64():
        in_range = pc.and_(pc.greater_equal(column, 0), pc.less_equal(column, LAST_MS))
        return pc.if_else(in_range, column, pa.scalar(None, pa.int64()))
    return pa.chunked_array([pa.array([_moment(text) for text in column.to_pylist()], pa.int64())])


def _moment(text: str | None) -> int | None:
    try:
        return None if text is None else moment(text, "")
    except Refused:
        return None
