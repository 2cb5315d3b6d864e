"""Which team should answer a message? Asked when it comes in, from its words and from how much its sender has written lately."""

from model import make_pipeline

import tidemill as tm

PROJECT = "myproject"
TEAMS = ["billing", "delivery", "account"]

received = tm.Event("myproject.received", {"message": str, "at": int, "sender": str, "text": str}, time="at", id="message")
answered = tm.Event("myproject.answered", {"message": str, "at": int, "sender": str, "team": str}, time="at", id="message")

senders = tm.FeatureView(
    "senders",
    source=answered,
    entity="sender",
    windows=["7d"],
    features=[tm.count()],
)

team = tm.Model(
    "team",
    on=received,
    at="at",
    subject="message",
    inputs=[senders, tm.Words("text")],
    outcome=tm.Outcome(answered, "team", subject="message", within="3d", classes=TEAMS),
    pipeline=make_pipeline,
)
