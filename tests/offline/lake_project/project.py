"""A small project for the tests of the offline store; its name comes from the environment, so that each test has topics of its own."""

import os
from typing import Any

from tidemill import Event, FeatureView, Model, Outcome, Request, count, mean, rate

PROJECT = os.environ.get("LAKE_PROJECT", "lake")

sold = Event(
    "sold",
    {"at": int, "id": str, "shop": str, "item": int, "price": float, "weight": float | None, "pieces": int, "paid": bool},
    time="at",
    id="id",
)
shops = FeatureView(
    "shops",
    sold,
    entity="shop",
    features=[count(), mean("price"), mean("weight"), mean("pieces"), rate("paid", name="paid_rate")],
    windows=["1h"],
    partitions=3,
)
items = FeatureView("items", sold, entity="item", features=[count()], partitions=2)
returned = Event("returned", {"at": int, "id": str, "late": bool}, time="at")


def pipeline() -> Any:
    """Never trained here."""
    raise NotImplementedError


comes_back = Model(
    "comes_back", sold, "at", "id", [shops, Request("price")], Outcome(returned, "late", subject="id", within="10m"), pipeline
)
late_back = Model("late_back", sold, "at", "id", [items], Outcome(returned, "late", subject="id", within="1h"), pipeline)
