"""Bicycles that are hired and come back: history in files, and a model of it."""

from typing import Any

from tidemill import Event, FeatureView, Model, Outcome, Request, count, mean

hired = Event("hired", {"at": str, "hire": str, "station": str, "member": bool, "battery": float | None}, time="at", id="hire")
returned = Event("returned", {"at": str, "hire": str, "station": str, "minutes": float}, time="at", id="hire")
stations = FeatureView("stations", returned, "station", [count(), mean("minutes")], windows=["2h", "1d"])


def classifier() -> Any:
    """Where a station has no returns yet, -1."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-1.0), LogisticRegression())


long_hire = Model(
    "long_hire", hired, "at", "hire", [stations, Request("member", bool)], Outcome(returned, "minutes > 30", "hire"), classifier
)
