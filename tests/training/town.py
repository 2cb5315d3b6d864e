"""A town's taxi trips: announced, driven, and the tip as the outcome. The log is that of a live system: in order of knowledge."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from tests.demo_state import HOUR_MS, NOW_MS, demo, trip
from tests.proof.world import Happened, World

from tidemill.declarations import Model
from tidemill.kernel.keys import partition_of
from tidemill.kernel.served import serve
from tidemill.models.inputs import ModelInputs

MINUTE_MS = 60_000
FOLDER = Path(__file__).parents[1] / "demo_project"
ZONES = ["north", "süd", "east", "unseen"]


def happened(count: int, seed: int = 1) -> list[Happened]:
    """Trips asked for ten minutes ahead, driven, some reported late or twice; in order of knowledge."""
    draw = random.Random(seed)
    events: list[Happened] = []
    for i in range(count):
        asked_ms = NOW_MS + 3 * MINUTE_MS * i + draw.randrange(1000)
        at, zone, driver, fare = asked_ms + 10 * MINUTE_MS, draw.choice(ZONES[:3]), draw.randrange(4), round(draw.gauss(20, 8), 2)
        wish: dict[str, Any] = {
            "at": at, "id": f"t{i}", "zone": draw.choice([zone, "unseen"]), "driver_id": driver,
            "distance": fare / 3, "payment": draw.choice(["card", "cash"]), "member": draw.random() < 0.5,
        }  # fmt: skip
        events.append((asked_ms, "asked", wish))
        tip = draw.choice([None, 0.5, 4.0 if fare > 20 else 1.0])
        driven = trip(at + 5 * MINUTE_MS, zone, fare, tip, driver, f"t{i}")
        known = at + 5 * MINUTE_MS + draw.choice([0, 1, 2 * HOUR_MS])
        events += [(known, "trips", driven)] * draw.choice([1, 1, 1, 2])
    return sorted(events, key=lambda event: event[0])


def town(root: Path, count: int = 80, seed: int = 1) -> World:
    """All of it in an offline store."""
    world = World(demo(), root)
    world.publish(happened(count, seed))
    world.write()
    return world


def simulated(events: list[Happened], model: Model, categories: dict[str, list[str]], root: Path) -> dict[str, tuple[int, np.ndarray]]:
    """What requests at their moments are answered: events are applied one by one as they become known, each request asks in between.

    Time and input vector by subject.
    """
    world, inputs = World(demo(), root), ModelInputs(model, categories)
    wishes = sorted((wish["at"], wish["id"], wish) for _, name, wish in events if name == "asked")
    waiting, found = list(events), dict[str, tuple[int, np.ndarray]]()
    for at, subject, wish in wishes:
        while waiting and waiting[0][0] <= at:
            world.publish([waiting.pop(0)])
        served = []
        for (view, _), key in zip(inputs.views, inputs.keys(wish), strict=True):
            assert key is not None
            fold, states = world.fold(view, partition_of(key, view.partitions))
            reading = fold.kernel.read(fold.kernel.encode(states[key]), at) if key in states else None
            served.append(serve(view, reading, at))
        found[subject] = at, np.array(inputs.row(served, wish), np.float32)
    return found
