"""One event, one view. Its name comes from the environment, so that each test has topics of its own."""

import os
from typing import Any

from tidemill import Event, FeatureView, count, mean

PROJECT = os.environ.get("TRIPS_PROJECT", "trips")
LATER: dict[str, Any] = {"tip": float | None} if os.environ.get("TRIPS_LATER") else {}

trips = Event(
    "trips",
    {"at": int, "id": str, "zone": str, "fare": float, "seats": int | None} | LATER,
    time="at",
    id="id",
    topic=f"{PROJECT}.in.trips",
    partitions=2,
)
zones = FeatureView("zones", trips, entity="zone", features=[count(), mean("fare")], windows=["1h"], partitions=1)
