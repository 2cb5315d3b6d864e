"""A small project for the tests under faults: orders, visits and returns of some shops. Will an order be sent back?"""

from typing import Any

import tidemill as tm

PROJECT = "shops"

ordered = tm.Event(
    "shop.ordered",
    fields={
        "event_id": str, "order": str, "customer": int, "shop": str, "ordered_at": int, "ask_at": int, "amount": float, "items": int,
    },
    time="ordered_at",
    id="event_id",
)  # fmt: skip

returned = tm.Event(
    "shop.returned",
    fields={"event_id": str, "order": str, "shop": str, "at": int, "back": bool, "refund": float | None},
    time="at",
    id="event_id",
)

visited = tm.Event("shop.visited", fields={"event_id": str, "customer": int, "at": int, "seconds": float}, time="at", id="event_id")

# A whole step of the recording may arrive in any order of its partitions, so every horizon is days longer than a step.
customers = tm.FeatureView(
    "customers", ordered, entity="customer", windows=["1h", "1d", "7d"], dedupe=64,
    features=[tm.count(), tm.sum("amount"), tm.max("amount"), tm.last("amount"), tm.age()],
)  # fmt: skip

shops = tm.FeatureView(
    "shops", ordered, entity="shop", windows=["6h", "7d"], dedupe=255, partitions=2,
    features=[tm.count(), tm.mean("amount"), tm.rate("amount > 20", name="large")],
)  # fmt: skip

returns = tm.FeatureView(
    "returns", returned, entity="shop", windows=["7d"], ttl="5d", dedupe=255, partitions=3,
    features=[tm.rate("back", name="back"), tm.count(), tm.last("refund")],
)  # fmt: skip

visits = tm.FeatureView(
    "visits", visited, entity="customer", windows=["1h", "1d", "5d"], dedupe=64, features=[tm.count(), tm.sum("seconds"), tm.min("seconds")]
)


def pipeline() -> Any:
    """A logistic regression; scikit-learn is imported here, since only training needs it."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), StandardScaler(), LogisticRegression(max_iter=500))


sent_back = tm.Model(
    "sent_back",
    on=ordered,
    at="ask_at",
    subject="order",
    inputs=[customers, shops, returns, visits, tm.Request("amount"), tm.Request("items", int)],
    outcome=tm.Outcome(returned, value="back", subject="order", within="36h"),
    pipeline=pipeline,
)
