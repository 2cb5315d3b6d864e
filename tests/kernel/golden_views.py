"""The views whose stored bytes are pinned: together they have every aggregation, column, length of tiles and option there is."""

from __future__ import annotations

import tidemill as tm
from tidemill import Entity, Event, FeatureView, age, count, last, mean, rate, std

HAPPENED = Event(
    "golden.happened",
    {
        "who": str, "number": int, "at": int, "id": str, "x": float | None, "y": int, "flag": bool, "maybe": bool | None,
        "kind": str, "note": str | None,
    },
    time="at",
    id="id",
    future="6h",
)  # fmt: skip

EVERY = FeatureView(
    "every",
    HAPPENED,
    "who",
    [
        count(),
        count("x"),
        tm.sum("x"),
        tm.sum("y"),
        mean("x"),
        mean("y"),
        rate("x > 0", name="positive"),
        tm.min("x"),
        tm.min("y"),
        tm.max("x"),
        tm.max("y"),
        std("x"),
        std("y"),
        last("x", windows=["5m", "2h", "lifetime"]),
        age(windows=["10m", "lifetime"]),
        age("x", windows=["1h", "lifetime"]),
    ],
    windows=["5m", "10m", "1h", "2h", "lifetime"],
    tile="1m",
    tiles={"10m": "5m", "2h": "15m"},
    dedupe=3,
)
LIFETIME = FeatureView(
    "whole_life",
    HAPPENED,
    Entity("driver_id", field="number"),
    [count(), count("note"), mean("y"), tm.min("x"), tm.max("x"), last("x"), last("maybe"), age(), age("note")],
    dedupe=0,
    partitions=1,
)
AHEAD = FeatureView(
    "waiting",
    HAPPENED,
    "who",
    [count(), mean("x"), std("y"), last("y", windows=["1h"]), age(windows=["1h", "3h"]), age("x", windows=["3h"])],
    windows=["30m", "1h", "3h"],
    tile="5m",
    ahead="2h",
    dedupe=8,
    partitions=2,
)
ASKEW = FeatureView(
    "askew",
    HAPPENED,
    Entity("customer", field="number"),
    [count(), tm.sum("x"), std("x"), tm.min("y"), tm.max("y"), last("x", windows=["10m", "1h"])],
    windows=["2m", "5m", "10m", "1h"],
    tile="2m",
    tiles={"5m": "5m", "10m": "5m", "1h": "15m"},
    dedupe=2,
)
LADDER = FeatureView(
    "ladder",
    HAPPENED,
    "who",
    [count(), mean("x"), rate("maybe", name="maybes"), tm.max("y"), age()],
    windows=["1h", "1d", "7d", "30d"],
    ttl="2d",
    dedupe=8,
)
CONDITIONS = FeatureView(
    "conditions",
    HAPPENED,
    "who",
    [
        rate("x > 0", name="positive"),
        rate("kind == 'a' and not flag", name="quiet"),
        rate("x * 2 + y >= -3.5 or maybe", name="mixed"),
        count("note == 'späte\"r'", name="later"),
        mean("y - 1 != 0", name="other"),
        last("flag"),
        tm.sum("-y < x", windows=["1h"], name="below"),
    ],
    windows=["1h", "12h"],
    tile="15m",
    dedupe=1,
)
SINGLE = FeatureView("single", HAPPENED, "number", [count()], windows=["1h"], tile="10m", dedupe=0, partitions=1)
SIDED = FeatureView(
    "sided",
    HAPPENED,
    "who",
    [
        count(),
        tm.first("x"),
        tm.last_k("x", 3, windows=["30m"]),
        tm.last_k("y", 2, windows=["3h", "lifetime"]),
        tm.distinct("y"),
        tm.distinct("note", windows=["30m", "lifetime"]),
    ],
    windows=["30m", "3h"],
    tile="10m",
    dedupe=2,
)
TEXTS = FeatureView(
    "texts",
    HAPPENED,
    "who",
    [
        count(),
        last("x"),
        last("note"),
        last("kind", windows=["30m", "3h"]),
        tm.first("note", windows=["30m", "lifetime"]),
        tm.first("kind"),
    ],
    windows=["30m", "3h"],
    tile="10m",
    where="kind == 'a' or x > 0",
    dedupe=2,
)

ERASED = FeatureView(
    "erased",
    HAPPENED,
    "who",
    [count(), mean("x"), last("y", windows=["lifetime"]), last("kind"), tm.last_k("y", 3, windows=["1h"])],
    windows=["1h", "6h"],
    tile="10m",
    erase="maybe and y < -2",
    dedupe=3,
)

VIEWS = {view.name: view for view in (EVERY, LIFETIME, AHEAD, ASKEW, LADDER, CONDITIONS, SINGLE, SIDED, TEXTS, ERASED)}
