"""The project of the training benchmark: six aggregates of one number over three windows, and a model on them."""

from typing import Any

from tidemill import Event, FeatureView, Model, Outcome, Request, count, max, mean, min, std, sum

PROJECT = "bench_training"

FIELDS = {"card": str, "at": int, "amount": float}
paid = Event("bench.paid", FIELDS, time="at")
checked = Event("bench.checked", {"card": str, "at": int, "limit": float, "fraud": bool}, time="at")
amounts = FeatureView(
    "amounts", paid, entity="card", windows=["1h", "24h", "7d"],
    features=[count(), sum("amount"), mean("amount"), min("amount"), max("amount"), std("amount")],
)  # fmt: skip


def pipeline() -> Any:
    """The benchmark stops at the training set."""
    raise NotImplementedError


fraud = Model(
    "fraud", on=checked, at="at", subject="card", inputs=[amounts, Request("limit")],
    outcome=Outcome(checked, value="fraud", subject="card", within="7d"), pipeline=pipeline,
)  # fmt: skip
