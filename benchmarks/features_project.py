"""The project of the feature benchmark: six aggregates of one number over three windows, for each of many keys."""

from tidemill import Event, FeatureView, count, max, mean, min, std, sum

PROJECT = "bench_features"

paid = Event("bench.paid", fields={"card": str, "at": int, "amount": float}, time="at")
amounts = FeatureView(
    "amounts", paid, entity="card", windows=["1h", "24h", "7d"],
    features=[count(), sum("amount"), mean("amount"), min("amount"), max("amount"), std("amount")],
)  # fmt: skip
