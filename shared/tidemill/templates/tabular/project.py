"""Will a booking be cancelled? Asked when it is made, from the booking itself and from how its hotel has done lately."""

from model import make_pipeline

import tidemill as tm

PROJECT = "myproject"

booked = tm.Event(
    "myproject.booked",
    {"booking": str, "at": int, "hotel": str, "channel": str, "nights": int, "price": float, "days_ahead": int},
    time="at",
    id="booking",
)
ended = tm.Event("myproject.ended", {"booking": str, "at": int, "hotel": str, "cancelled": bool}, time="at", id="booking")

hotels = tm.FeatureView(
    "hotels",
    source=ended,
    entity="hotel",
    windows=["7d", "30d"],
    features=[tm.count(), tm.rate("cancelled", name="cancelled")],
)

cancels = tm.Model(
    "cancels",
    on=booked,
    at="at",
    subject="booking",
    inputs=[hotels, tm.Request("channel", str), tm.Request("nights"), tm.Request("price"), tm.Request("days_ahead")],
    outcome=tm.Outcome(ended, "cancelled", subject="booking", within="7d"),
    pipeline=make_pipeline,
)
