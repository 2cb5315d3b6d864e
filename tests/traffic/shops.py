"""A project with everything that traffic may have: keys, nullable fields, paths, units, a condition, classes, words, tensors, and an absence that is an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tidemill as tm
from tidemill.declarations.project import Project
from tidemill.traffic.acts import Act, TrafficPlan, acts
from tidemill.traffic.drifts import parse_drift

START_MS = 1_767_571_200_000

PLACED = tm.Event(
    "placed",
    {
        "order": str, "at": int, "shop": str, "amount": float, "pieces": int, "channel": str, "gift": bool, "coupon": str | None,
        "weight": float | None, "note": str, "pixels": str,
    },
    time="at",
    id="order",
)  # fmt: skip
PAID = tm.Event("paid", {"order": str, "at": int, "shop": str, "days_late": float}, time="at", id="order")
RATED = tm.Event("rated", {"rating": str, "order": str, "at": str, "stars": str}, time="at", id="rating")
RETURNED = tm.Event("returned", {"order": str, "at": int, "back": bool}, time="at")
MEASURED = tm.Event(
    "measured",
    {"at": tm.Field(int, path=["meta", "at"], unit="s"), "shop": tm.Field(str, path="shop-id"), "degrees": float},
    time="at",
    topic="sensors",
    type=tm.Type("Measured", field=["meta", "type"]),
)
SHOPS = tm.FeatureView("shops", PAID, "shop", [tm.count(), tm.rate("days_late > 3", name="late")], windows=["7d"])
ROOMS = tm.FeatureView("rooms", MEASURED, "shop", [tm.mean("degrees")], windows=["1d"], where="degrees > -40")
LATE = tm.Model(
    "late", PLACED, "at", "order", [SHOPS, tm.Request("amount"), tm.Request("channel", str)], tm.Outcome(PAID, "days_late > 3", "order")
)
STARS = tm.Model(
    "stars",
    PLACED,
    "at",
    "order",
    [tm.Words("note"), tm.Request("pieces")],
    tm.Outcome(RATED, "stars", "order", classes=["bad", "good", "great"]),
)
BACK = tm.Model(
    "back",
    PLACED,
    "at",
    "order",
    [tm.Tensor("pixels", shape=(2, 2)), tm.Request("gift", bool)],
    tm.Outcome(RETURNED, "back", "order", absent=0),
)


def project() -> Project:
    """All of it."""
    events = {event.name: event for event in (PLACED, PAID, RATED, RETURNED, MEASURED)}
    return Project("shop", events, {view.name: view for view in (SHOPS, ROOMS)}, {model.name: model for model in (LATE, STARS, BACK)})


def made(*drifts: str, **plan: Any) -> list[Act]:
    """All acts of a short plan, from `START_MS` on."""
    of = project()
    plan = {"rate": 20.0, "seconds": 10.0, "delay_ms": 2_000} | plan
    return list(acts(of, TrafficPlan(drifts=[parse_drift(text, of) for text in drifts], **plan), START_MS))


def of_event(found: list[Act], event: str) -> list[Act]:
    """Those that publish an event."""
    return [act for act in found if act.event == event and not act.model]


def values(found: list[Act], event: str, name: str) -> Iterator[Any]:
    """A field of each event of a kind."""
    return (act.row[name] for act in of_event(found, event))
