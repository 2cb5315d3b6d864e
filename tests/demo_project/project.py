"""A small project for the tests of the request path: taxi trips, a classifier and a regressor."""

from typing import Any

from tidemill import Entity, Event, FeatureView, Model, Outcome, Request, Training, age, count, last, max, mean, rate
from tidemill.declarations import Selection

PROJECT = "demo"

trips = Event(
    "trips",
    {"at": int, "id": str, "zone": str, "driver": int, "fare": float, "tip": float | None},
    time="at",
    id="id",
)
asked = Event(
    "asked",
    {"at": int, "id": str, "zone": str, "driver_id": int, "distance": float, "payment": str, "member": bool},
    time="at",
)

zones = FeatureView(
    "zones",
    trips,
    entity="zone",
    features=[count(), mean("fare"), last("tip"), rate("tip > 2", name="tippy"), age()],
    windows=["1h", "1d"],
    ttl="2d",
    description="Trips by zone",
)
drivers = FeatureView("drivers", trips, entity=Entity("driver_id", field="driver"), features=[count(), max("fare")])


def classifier() -> Any:
    """A pipeline of the kind a project writes."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-1.0), LogisticRegression())


def regressor() -> Any:
    """Another, with a value as its output."""
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-1.0), GradientBoostingRegressor(n_estimators=10))


_inputs: list[FeatureView | Selection | Request] = [
    zones,
    drivers.select("max_fare"),
    Request("distance"),
    Request("payment", str),
    Request("member", bool),
]
big_tip = Model("big_tip", asked, "at", "id", _inputs, Outcome(trips, "tip > 2", subject="id"), classifier)
fare = Model(
    "fare", asked, "at", "id", [zones.select("mean_fare_1d"), Request("distance")], Outcome(trips, "fare", subject="id"), regressor,
    training=Training(trusted=["distance"]),
)  # fmt: skip
