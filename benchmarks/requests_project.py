"""The project of the request benchmark: three views of ten features, and a model of all of them."""

from typing import Any

from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from tidemill import Event, FeatureView, Model, Outcome, Request, age, count, mean, rate

PROJECT = "bench_requests"
ENTITIES = ("origin", "carrier", "tailnum")

departed = Event(
    "departed", {"origin": str, "carrier": str, "tailnum": str, "at": int, "delay": float, "flight": str}, time="at", partitions=1
)
scheduled = Event(
    "scheduled", {"origin": str, "carrier": str, "tailnum": str, "at": int, "flight": str, "distance": float, "hour": float}, time="at"
)

views = [
    FeatureView(
        f"{entity}_delays",
        departed,
        entity=entity,
        windows=["1h", "6h", "24h"],
        features=[count(), mean("delay"), rate("delay > 15", name="late"), age()],
    )
    for entity in ENTITIES
]
origins, carriers, tails = views


def pipeline() -> Any:
    """A hundred small trees."""
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-1.0), GradientBoostingClassifier(n_estimators=100))


late = Model(
    "late",
    scheduled,
    "at",
    "flight",
    [*views, Request("distance"), Request("hour")],
    Outcome(departed, "delay > 15", subject="flight"),
    pipeline,
)
