"""Which digit is on a picture? Pictures are 8 x 8 pixels; the truth is what a person says of the answer."""

from model import make_pipeline

import tidemill as tm

PROJECT = "myproject"
SIDE = 8
CLASSES = [str(number) for number in range(10)]

shown = tm.Event("myproject.shown", {"picture": str, "at": int, "pixels": str}, time="at", id="picture")
told = tm.Event("myproject.told", {"picture": str, "at": int, "digit": str}, time="at")

digit = tm.Model(
    "digit",
    on=shown,
    at="at",
    subject="picture",
    inputs=[tm.Tensor("pixels", shape=(SIDE, SIDE))],
    outcome=tm.Outcome(told, "digit", subject="picture", within="7d", classes=CLASSES),
    pipeline=make_pipeline,
)
