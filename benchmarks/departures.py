"""The project of the ingestion benchmark: one event that feeds three views."""

from tidemill import Event, FeatureView, count, mean, rate

PROJECT = "bench_ingestion"

departed = Event(
    "bench.departed",
    fields={
        "flight_id": str, "carrier": str, "origin": str, "dest": str, "tailnum": str | None,
        "departed_at": int, "dep_delay": float, "distance": float,
    },
    time="departed_at",
    id="flight_id",
)  # fmt: skip

origins, carriers, planes = (
    FeatureView(
        f"{entity}_delays", departed, entity=entity, windows=["1h", "24h"],
        features=[count(), mean("dep_delay"), rate("dep_delay > 15", name="late")],
    )
    for entity in ("origin", "carrier", "tailnum")
)  # fmt: skip
