"""What a change of a view does to some entities, as `tidemill plan` shows it."""

from __future__ import annotations

from pathlib import Path

from tests.demo_state import NOW_MS
from tests.proof.world import World

from tidemill import Event, FeatureView, count, first, last, last_k
from tidemill.cli.samples import samples
from tidemill.declarations.project import Project

MOVED = Event("moved", {"at": int, "shop": str, "status": str | None, "amount": float}, time="at")
BEFORE = FeatureView("shops", MOVED, "shop", [count(), last("amount")])
AFTER = FeatureView("shops", MOVED, "shop", [count(), last("amount"), last("status"), first("status", windows=["1h"]), last_k("amount", 2)])


def test_values_before_and_after(tmp_path: Path) -> None:
    """Numbers and texts by entity, null where there is none; lists are left out, and what stays the same."""
    world = World(Project("corner", {"moved": MOVED}, {"shops": BEFORE}), tmp_path)
    world.publish(
        (NOW_MS + i, "moved", {"at": NOW_MS + i, "shop": shop, "status": status, "amount": 2.5})
        for i, (shop, status) in enumerate([("a", "new"), ("b", None), ("a", "paid")])
    )
    store = world.write()
    assert list(samples(store, BEFORE, AFTER, NOW_MS + 10)) == [
        "shop a now: last_status (none) -> paid, first_status_1h (none) -> new",
        "shop b now: last_status (none) -> null, first_status_1h (none) -> null",
    ]
    assert next(samples(store, AFTER, BEFORE, NOW_MS + 10)) == "shop a now: last_status paid -> (none), first_status_1h new -> (none)"
    assert list(samples(store, BEFORE, BEFORE, NOW_MS + 10)) == ["shop a now: no value changes", "shop b now: no value changes"]
