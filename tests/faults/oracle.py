"""What must have come of the recording, computed the naive way from the list of publications: no tiles, no fold, no join, plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tests.faults.recording import HOUR_MS, MINUTE_MS, WITHIN_MS, Sent

DAY_MS = 24 * HOUR_MS
ENTITY = {"customers": "customer", "shops": "shop", "returns": "shop", "visits": "customer"}
SOURCE = {"customers": "shop.ordered", "shops": "shop.ordered", "returns": "shop.returned", "visits": "shop.visited"}
LONGEST_MS = {"customers": 7 * DAY_MS, "shops": 7 * DAY_MS, "returns": 7 * DAY_MS, "visits": 5 * DAY_MS}
# A window touches whole tiles: 5 minutes up to 12 hours, then 15 minutes up to 42, then an hour.
TILE_MS = {HOUR_MS: 5 * MINUTE_MS, 6 * HOUR_MS: 5 * MINUTE_MS, DAY_MS: 15 * MINUTE_MS, 5 * DAY_MS: HOUR_MS, 7 * DAY_MS: HOUR_MS}
WINDOWS = {"1h": HOUR_MS, "6h": 6 * HOUR_MS, "1d": DAY_MS, "5d": 5 * DAY_MS, "7d": 7 * DAY_MS}


def used(view: str, published: Iterable[Sent]) -> dict[object, list[Sent]]:
    """The events of a view by entity, in order: each id once, and none that is older than the longest window before the newest."""
    found: dict[object, list[Sent]] = {}
    seen: set[str] = set()
    newest: dict[object, int] = {}
    for sent in published:
        if sent.reason is not None or sent.event != SOURCE[view]:
            continue
        entity = sent.data[ENTITY[view]]
        if sent.time_ms < newest.get(entity, 0) - LONGEST_MS[view] or sent.data["event_id"] in seen:
            continue
        seen.add(sent.data["event_id"])
        newest[entity] = max(newest.get(entity, 0), sent.time_ms)
        found.setdefault(entity, []).append(sent)
    return found


def _window(events: list[Sent], window: str, now_ms: int) -> list[dict[str, Any]]:
    window_ms = WINDOWS[window]
    tile_ms = TILE_MS[window_ms]
    first, last = (now_ms - window_ms) // tile_ms, now_ms // tile_ms
    return [sent.data for sent in events if first <= sent.time_ms // tile_ms <= last]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def features(view: str, events: list[Sent], now_ms: int) -> dict[str, float]:
    """Every feature of one entity of a view, by name."""
    newest = max(events, key=lambda sent: sent.time_ms)
    match view:
        case "customers":
            found = {"last_amount": newest.data["amount"], "age": (now_ms - newest.time_ms) / 1000}
            for window in ("1h", "1d", "7d"):
                amounts = [data["amount"] for data in _window(events, window, now_ms)]
                found |= {f"count_{window}": float(len(amounts)), f"sum_amount_{window}": sum(amounts)}
                found[f"max_amount_{window}"] = max(amounts, default=math.nan)
        case "shops":
            found = {}
            for window in ("6h", "7d"):
                amounts = [data["amount"] for data in _window(events, window, now_ms)]
                found |= {f"count_{window}": float(len(amounts)), f"mean_amount_{window}": _mean(amounts)}
                found[f"large_{window}"] = _mean([float(amount > 20) for amount in amounts])
        case "returns":
            inside = _window(events, "7d", now_ms)
            refunds = [sent for sent in events if sent.data["refund"] is not None]
            found = {"back_7d": _mean([float(data["back"]) for data in inside]), "count_7d": float(len(inside))}
            found["last_refund"] = max(refunds, key=lambda sent: sent.time_ms).data["refund"] if refunds else math.nan
            if now_ms - newest.time_ms > 5 * DAY_MS:
                found = dict.fromkeys(found, math.nan)
        case _:
            found = {}
            for window in ("1h", "1d", "5d"):
                seconds = [data["seconds"] for data in _window(events, window, now_ms)]
                found |= {f"count_{window}": float(len(seconds)), f"sum_seconds_{window}": sum(seconds)}
                found[f"min_seconds_{window}"] = min(seconds, default=math.nan)
    return found


class Joined(NamedTuple):
    """What the results must say about a prediction."""

    status: str
    known: int
    outcome: float | None


def joined(subject: str, time_ms: int, outcomes: Mapping[str, list[Sent]]) -> Joined:
    """The first outcome of the subject published within the time allowed, before or after the prediction; `never` without one."""
    for sent in outcomes.get(subject, []):
        if abs(sent.known_ms - time_ms) <= WITHIN_MS:
            return Joined("joined", sent.known_ms, float(sent.data["back"]))
    return Joined("never", time_ms + WITHIN_MS, None)


def by_subject(published: Iterable[Sent]) -> dict[str, list[Sent]]:
    """The outcomes of every subject in the order in which they became known."""
    found: dict[str, list[Sent]] = {}
    for sent in published:
        if sent.reason is None and sent.event == "shop.returned":
            found.setdefault(sent.data["order"], []).append(sent)
    return found
