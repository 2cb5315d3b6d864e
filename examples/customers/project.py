"""Will an order be returned? From the customer's row in a database as it is at that moment, and from what the customer ordered before."""

from typing import Any

import tidemill as tm

PROJECT = "returns"

# Debezium writes the changes of the table `customers` to this topic.
changed = tm.Event(
    "customer_changed",
    time="at",
    topic="pg.public.customers",
    envelope="debezium",
    deletes="keep",
    fields={
        "at": tm.Field(int, path="__source_ts_ms"),
        "deleted": tm.Field(bool, path="__deleted"),
        "customer": tm.Field(int, path="id"),
        "segment": str | None,
        "country": str | None,
        "credit": float | None,
    },
)
ordered = tm.Event("ordered", {"order": str, "at": int, "customer": int, "amount": float}, time="at", id="order")
closed = tm.Event("closed", {"order": str, "at": int, "returned": bool}, time="at")

# The row of a customer: no customer before the row is made and after it is deleted.
customers = tm.FeatureView(
    "customers", changed, "customer", [tm.last("segment"), tm.last("country"), tm.last("credit")], erase="deleted", partitions=2
)
orders = tm.FeatureView("orders", ordered, "customer", [tm.count(), tm.mean("amount")], windows=["30d"], partitions=2)


def pipeline() -> Any:
    """A pipeline of scikit-learn; what is missing stays missing."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0, min_samples_leaf=5)


is_returned = tm.Model(
    "is_returned",
    on=ordered,
    at="at",
    subject="order",
    inputs=[customers, orders, tm.Request("amount")],
    outcome=tm.Outcome(closed, "returned", subject="order", within="60d"),
    pipeline=pipeline,
)
