"""Rows of a view's partition with the time of its log, which SQL needs where a view remembers ids for a time."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations import FeatureView
from tidemill.offline.store import Snapshot
from tidemill.proof.book import SLICE_ROWS, Breathe, between
from tidemill.proof.log_times import LogTimes
from tidemill.verify.sql import LOG_TIME


class TimedPartition:
    """The times of one partition's log, read from its rows as far as they are asked for."""

    def __init__(self, view: FeatureView, partition: int) -> None:
        self._times, self._partition, self._next = LogTimes(view), partition, 0

    def timed(self, snapshot: Snapshot, end: int, rows: pa.Table, breathe: Breathe) -> pa.Table:
        """Rows below `end`, with the time of the log at each as `LOG_TIME`."""
        while self._next < end:
            upto = min(self._next + SLICE_ROWS, end)
            read = snapshot.scan(["offset", "known"], between(self._partition, self._next, upto) & pc.field("time").is_valid())
            self._times.take(read["offset"].to_numpy(), read["known"].to_numpy())
            self._next = upto
            breathe()
        return rows.append_column(LOG_TIME, pa.array(self._times.at_ms(rows["offset"].to_numpy())))
