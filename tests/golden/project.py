"""The project of the golden store: rides that are ordered ahead, taken, reported (some late, some twice) and tipped, for half a day."""

import random
from collections.abc import Iterator
from typing import Any

from sklearn.ensemble import GradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from tidemill import Entity, Event, FeatureView, Model, Outcome, Recording, Request, age, count, last, max, mean, min, rate, std, sum

PROJECT = "golden"
MINUTE_MS = 60_000
START_MS = 1_767_225_600_000  # 2026-01-01, UTC

ordered = Event(
    "golden.ordered",
    {"ride": str, "pickup_at": int, "zone": str, "driver_id": int, "distance": float, "payment": str, "member": bool},
    time="pickup_at",
    future="3h",
    partitions=2,
)
taken = Event(
    "golden.taken",
    {"ride": str, "at": int, "zone": str, "driver": int, "fare": float, "tip": float | None, "note": str | None},
    time="at",
    id="ride",
    partitions=2,
)

zones = FeatureView(
    "zones",
    taken,
    "zone",
    [count(), mean("tip"), std("fare"), rate("tip > 2", name="tipped"), last("tip"), age("note", windows=["6h"])],
    windows=["1h", "6h"],
    ttl="4h",
    dedupe=8,
    partitions=2,
)
drivers = FeatureView("drivers", taken, Entity("driver_id", field="driver"), [count(), max("fare"), min("tip"), age()], dedupe=0)
orders = FeatureView("orders", ordered, "zone", [count(), sum("distance")], windows=["30m", "2h"], ahead="2h", dedupe=8, partitions=2)


def classifier() -> Any:
    """A tree, whose answer is read from a leaf: the same bits on every machine."""
    return make_pipeline(
        SimpleImputer(strategy="constant", fill_value=-1.0), DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, random_state=0)
    )


def regressor() -> Any:
    """A few trees, whose leaves are added one after another."""
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-1.0), GradientBoostingRegressor(n_estimators=8, random_state=0))


big_tip = Model(
    "big_tip",
    ordered,
    "pickup_at",
    "ride",
    [zones, drivers, orders, Request("distance"), Request("payment", str), Request("member", bool)],
    Outcome(taken, "tip > 2", subject="ride"),
    classifier,
)
fare = Model(
    "fare",
    ordered,
    "pickup_at",
    "ride",
    [drivers.select("max_fare"), orders.select("sum_distance_2h"), Request("distance")],
    Outcome(taken, "fare", subject="ride"),
    regressor,
)


def recorded(start_ms: int, end_ms: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """A ride every two minutes, ordered up to an hour and a half ahead; some are reported an hour late, a day late, or twice."""
    draw = random.Random(11)
    events: list[tuple[int, str, dict[str, Any]]] = []
    for i in range(360):
        asked = START_MS + 2 * i * MINUTE_MS + draw.randrange(MINUTE_MS)
        zone, driver = draw.choice(["north", "süd", "centre"]), draw.randrange(6)
        pickup = asked + draw.choice([30, 45, 90]) * MINUTE_MS
        distance = draw.random() * 10
        order = {"ride": f"r{i}", "pickup_at": pickup, "zone": zone, "driver_id": driver, "distance": distance}
        order |= {"payment": draw.choice(["card", "cash", "card", "pearls"]), "member": draw.random() < 0.5}
        tip = draw.choice([None, round(draw.gauss(0.5 + driver, 1), 2), round(draw.gauss(0.5 + driver, 1), 2)])
        at = pickup + (9 if i % 50 != 49 else 9 - 1440) * MINUTE_MS
        ride = {"ride": f"r{i}", "at": at, "zone": zone, "driver": driver, "fare": round(3 + 1.7 * distance, 2)}
        ride |= {"tip": tip, "note": draw.choice([None, None, "wet", "späte"])}
        known = pickup + (69 if i % 10 == 0 else 9) * MINUTE_MS
        events.append((asked, "golden.ordered", order))
        events += [(known, "golden.taken", ride)] * (2 if i % 17 == 5 else 1)
    events.sort(key=lambda event: event[0])
    return (event for event in events if start_ms < event[0] <= end_ms)


half_a_day = Recording("half_a_day", recorded, start="2026-01-01", end="2026-01-01T12:00")
