"""What a reading is worth at a request: the value of each feature and its truthful status. Serving, inference and training share it."""

from __future__ import annotations

import math
from typing import NamedTuple

from tidemill.declarations import FeatureView
from tidemill.kernel.view import Reading
from tidemill.records import Status


class Served(NamedTuple):
    """The features of one view for one entity: values (NaN: none), a status for each, and the newest event's time in ms (None: no entity)."""

    values: list[float]
    statuses: list[Status]
    newest_ms: int | None


def withheld(view: FeatureView) -> Served:
    """What is served of a view while its partition is being rebuilt: nothing."""
    return Served([math.nan] * len(view.served), ["INVALID"] * len(view.served), None)


def serve(view: FeatureView, reading: Reading | None, time_ms: int) -> Served:
    """Applies ttl and completeness to a reading at `time_ms` (None: the store has no such entity)."""
    if reading is None or reading.newest_ms is None:
        return Served([math.nan] * len(view.served), ["NOT_FOUND"] * len(view.served), None)
    if view.ttl_ms is not None and time_ms - reading.newest_ms > view.ttl_ms:
        return Served([math.nan] * len(view.served), ["OUTSIDE_MAX_AGE"] * len(view.served), reading.newest_ms)
    values, statuses = reading.values, list[Status]()
    for i, whole in enumerate(reading.complete):
        if not whole:
            values[i] = math.nan
            statuses.append("INVALID")
        else:
            statuses.append("PRESENT")
            if not math.isfinite(values[i]):  # none, or beyond what a double holds
                values[i], statuses[i] = math.nan, "NULL_VALUE"
    return Served(values, statuses, reading.newest_ms)
