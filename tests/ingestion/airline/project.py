"""A project for the tests of ingestion: every kind of field, key, view, request and outcome. AIRLINE names it and its topics."""

import os
from typing import Any

from tidemill import Entity, Event, FeatureView, Model, Outcome, Request, count, last, max, mean, rate

PROJECT = os.environ.get("AIRLINE", "airline")

departed = Event(
    "departed",
    {
        "flight": str, "carrier": str, "origin": str, "tailnum": str | None, "gate": int,
        "departed_at": int, "dep_delay": float | None, "diverted": bool, "seats": int,
    },
    time="departed_at", id="flight", topic=f"{PROJECT}.in.departed",
)  # fmt: skip
scheduled = Event(
    "scheduled",
    {"flight": str | None, "origin": str, "gate_id": int, "published_at": str, "departs_at": str, "distance": float, "cabin": str},
    time="published_at", topic=f"{PROJECT}.in.scheduled",
)  # fmt: skip
arrived = Event(
    "arrived",
    {"number": int, "flight": str, "arrived_at": str, "arr_delay": float | None, "fuel": float},
    time="arrived_at", id="number", future="10m", topic=f"{PROJECT}.in.arrived", partitions=2,
)  # fmt: skip

origins = FeatureView("origins", departed, entity="origin", features=[count(), mean("dep_delay")], windows=["1h"])
carriers = FeatureView("carriers", departed, entity="carrier", features=[max("dep_delay")], windows=["1h"], partitions=3)
planes = FeatureView("planes", departed, entity="tailnum", features=[count()], windows=["1h"])
gates = FeatureView(
    "gates", departed, entity=Entity("gate_id", field="gate"), features=[rate("diverted and seats > 100", name="big")], windows=["1h"]
)
landings = FeatureView("landings", arrived, entity="flight", features=[last("arr_delay")])


def pipeline() -> Any:
    """Never fitted here, so not imported either."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


late = Model(
    "late", scheduled, "departs_at", "flight", [origins, gates, Request("distance"), Request("cabin", str)],
    Outcome(arrived, "arr_delay > 15", subject="flight"), pipeline,
)  # fmt: skip
burn = Model(
    "burn", scheduled, "departs_at", "flight", [origins.select("count_1h")], Outcome(arrived, "fuel * fuel", subject="flight"), pipeline
)
