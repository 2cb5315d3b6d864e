"""A project that is played through the whole running system: rides that are ordered, taken and tipped, recorded for two days."""

import random
from collections.abc import Iterator
from typing import Any

from tidemill import Event, FeatureView, Model, Outcome, Recording, Request, age, count, mean

PROJECT = "rides"
MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
START_MS = 1_767_225_600_000  # 2026-01-01, UTC

ordered = Event("rides.ordered", {"ride": str, "at": int, "pickup_at": int, "zone": str, "driver": int, "distance": float}, time="at")
taken = Event("rides.taken", {"ride": str, "at": int, "zone": str, "driver": int, "fare": float, "tip": float}, time="at", id="ride")

zones = FeatureView("zones", taken, "zone", [count(), mean("tip")], windows=["1h", "6h"], partitions=2)
drivers = FeatureView("drivers", taken, "driver", [mean("tip"), age()])


def pipeline() -> Any:
    """The least that learns something. Imported here, since every service and command reads this file, and only training needs it."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-1.0), StandardScaler(), LogisticRegression())


big_tip = Model(
    "big_tip", ordered, "pickup_at", "ride", [zones, drivers, Request("distance")], Outcome(taken, "tip > 2", subject="ride"), pipeline
)


def recorded(start_ms: int, end_ms: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """About one ride a minute, ordered half an hour ahead; every tenth is reported an hour late."""
    draw = random.Random(7)
    events: list[tuple[int, str, dict[str, Any]]] = []
    for i in range(2 * 1440):
        at, zone, driver = START_MS + i * MINUTE_MS + draw.randrange(MINUTE_MS), draw.choice("abc"), draw.randrange(9)
        pickup = at + 30 * MINUTE_MS
        tip = round(max(0.0, draw.gauss(1 + driver / 3, 1)), 2)
        order = {"ride": f"r{i}", "at": at, "pickup_at": pickup, "zone": zone, "driver": driver, "distance": draw.random()}
        ride = {"ride": f"r{i}", "at": pickup + 9 * MINUTE_MS, "zone": zone, "driver": driver, "fare": 9.5, "tip": tip}
        events.append((at, "rides.ordered", order))
        events.append((pickup + (69 if i % 10 == 0 else 9) * MINUTE_MS, "rides.taken", ride))
    events.sort(key=lambda event: event[0])
    return (event for event in events if start_ms < event[0] <= end_ms)


two_days = Recording("two_days", recorded, start="2026-01-01", end="2026-01-03")
