"""From a reading to an answer: the value and the status of each feature at a request. Serving, inference and training share it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from tidemill.declarations import FeatureView
from tidemill.declarations.aggregations import Value
from tidemill.kernel.view import NO_OTHERS, Reading
from tidemill.records import Status


class Served(NamedTuple):
    """The features of one view for one entity. `values`: NaN where there is no value; `statuses`: one for each; `newest_ms`: time of the
    newest event (None: no such entity). `others`: by place, the values of PRESENT features that are lists or texts; `values` has NaN for
    them."""

    values: list[float]
    statuses: list[Status]
    newest_ms: int | None
    others: Mapping[int, list[float] | str] = NO_OTHERS

    def value(self, i: int) -> Value:
        """The value of the feature at a place: a number, a list or a text."""
        return self.others[i] if i in self.others else self.values[i]


def withheld(view: FeatureView) -> Served:
    """The answer of a view whose partition is being rebuilt: no values."""
    return Served(_none(view), ["INVALID"] * len(view.served), None)


def serve(view: FeatureView, reading: Reading | None, time_ms: int) -> Served:
    """Applies ttl and completeness to a reading at `time_ms` (None: the store has no such entity)."""
    if reading is None or reading.newest_ms is None:
        return Served(_none(view), ["NOT_FOUND"] * len(view.served), None)
    if view.ttl_ms is not None and time_ms - reading.newest_ms > view.ttl_ms:
        return Served(_none(view), ["OUTSIDE_MAX_AGE"] * len(view.served), reading.newest_ms)
    values, statuses = [*reading.values], list[Status]()
    for i, whole in enumerate(reading.complete):
        if not whole:
            values[i] = math.nan
            statuses.append("INVALID")
        else:
            statuses.append("PRESENT")
            if not math.isfinite(values[i]) and i not in reading.others:  # no value, or one beyond the range of a double
                values[i], statuses[i] = math.nan, "NULL_VALUE"
    present = {i: value for i, value in reading.others.items() if statuses[i] == "PRESENT"}
    return Served(values, statuses, reading.newest_ms, present)


def _none(view: FeatureView) -> list[float]:
    return [math.nan] * len(view.served)
