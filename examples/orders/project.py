"""Will an order be paid late? Asked when it is placed, from how its shop has paid before."""

from typing import Any

import tidemill as tm

PROJECT = "orders"

placed = tm.Event("orders.placed", {"order": str, "at": int, "shop": str, "amount": float}, time="at", id="order")
paid = tm.Event("orders.paid", {"order": str, "at": int, "shop": str, "amount": float, "days_late": float}, time="at", id="order")

shops = tm.FeatureView(
    "shops",
    source=paid,
    entity="shop",
    windows=["7d", "30d"],
    features=[tm.count(), tm.mean("days_late"), tm.rate("days_late > 3", name="late"), tm.last("amount")],
)


def pipeline() -> Any:
    """A pipeline of scikit-learn, as you write it; it is imported here, since only training needs it."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0)


pays_late = tm.Model(
    "pays_late",
    on=placed,
    at="at",
    subject="order",
    inputs=[shops, tm.Request("amount")],
    outcome=tm.Outcome(paid, "days_late > 3", subject="order", within="60d"),
    pipeline=pipeline,
)
