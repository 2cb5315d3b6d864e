"""What a world shows of a feature."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tidemill.kernel.served import Served
from tidemill.records import Status


class FeatureValue(NamedTuple):
    """A feature in an answer of feature serving or inference, or a value of the request. `age_seconds`: since the entity's newest event
    (None: no event)."""

    value: Any
    status: Status
    age_seconds: float | None


def shown(served: Served, place: int, time_ms: int) -> FeatureValue:
    """The feature at a place among the served ones."""
    value, age_ms = served.value(place), None if served.newest_ms is None else max(time_ms - served.newest_ms, 0)
    missing = isinstance(value, float) and math.isnan(value)
    return FeatureValue(None if missing else value, served.statuses[place], None if age_ms is None else age_ms / 1000)
