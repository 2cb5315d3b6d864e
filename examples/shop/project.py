"""Will a customer buy again within 30 days? Asked at each purchase, from what the customer has bought before."""

from typing import Any

import tidemill as tm

PROJECT = "shop"

bought = tm.Event("bought", {"order": str, "at": str, "customer": str, "cds": int, "dollars": float}, time="at", id="order")

customers = tm.FeatureView(
    "customers",
    source=bought,
    entity="customer",
    windows=["30d", "90d"],
    features=[tm.count(), tm.sum("dollars"), tm.age()],
)


def pipeline() -> Any:
    """A pipeline of scikit-learn."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_depth=3, random_state=0)


returns = tm.Model(
    "returns",
    on=bought,
    at="at",
    subject="customer",
    inputs=[customers, tm.Request("cds"), tm.Request("dollars")],
    outcome=tm.Outcome(bought, "cds >= 0", subject="customer", within="30d", absent=0),
    pipeline=pipeline,
)
