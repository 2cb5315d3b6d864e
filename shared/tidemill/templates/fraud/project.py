"""Is a payment a fraud? Asked before it is taken, from what its card and its merchant did before. The truth comes weeks later, or never."""

from model import make_pipeline

import tidemill as tm

PROJECT = "myproject"

paid = tm.Event(
    "myproject.paid",
    {"payment": str, "at": int, "card": str, "merchant": str, "country": str, "amount": float, "online": bool},
    time="at",
    id="payment",
)
charged_back = tm.Event("myproject.charged_back", {"payment": str, "at": int, "merchant": str, "fraud": bool}, time="at", id="payment")

cards = tm.FeatureView(
    "cards",
    source=paid,
    entity="card",
    windows=["1h", "1d", "30d"],
    features=[tm.count(), tm.mean("amount"), tm.max("amount"), tm.rate("online", name="online"), tm.age()],
)
places = tm.FeatureView("places", source=paid, entity="card", windows=["1d"], features=[tm.distinct("country"), tm.distinct("merchant")])
merchants = tm.FeatureView("merchants", source=paid, entity="merchant", windows=["1d", "30d"], features=[tm.count(), tm.mean("amount")])
complaints = tm.FeatureView(
    "complaints", source=charged_back, entity="merchant", windows=["30d"], features=[tm.sum("fraud", name="frauds")]
)

fraud = tm.Model(
    "fraud",
    on=paid,
    at="at",
    subject="payment",
    inputs=[cards, places, merchants, complaints, tm.Request("amount"), tm.Request("online", bool)],
    # Who does not complain within 14 days was not robbed.
    outcome=tm.Outcome(charged_back, "fraud", subject="payment", within="14d", absent=0),
    pipeline=make_pipeline,
    # An open alarm, or a month, begins a training; the new version must lose less than the old one on live payments. Payments of a card hang together.
    retrain=tm.Retrain(on=["drift", "performance", "skew"], every="30d", cluster="card", most=200_000, horizon="60d"),
)
