"""A model of several classes in a world."""

from __future__ import annotations

import dataclasses

from tests.demo_state import HOUR_MS, NOW_MS, demo, trip
from tests.training.zoo import boosted

from tidemill import Event, Outcome
from tidemill.testing import World

CLASSES = ["none", "small", "large"]
ENDED = Event("ended", {"at": int, "id": str, "tipped": str}, "at")
ENTITIES = {"zone": "north", "driver_id": 7, "payment": "cash", "member": True}


def test_a_world_answers_with_classes() -> None:
    """A project in memory trains on texts, and answers as inference does."""
    project = demo()
    outcome = Outcome(ENDED, "tipped", "id", classes=CLASSES)
    model = dataclasses.replace(project.models["big_tip"], outcome=outcome, pipeline=boosted)
    world = World(dataclasses.replace(project, models={"big_tip": model}, events={**project.events, "ended": ENDED}))
    for i in range(150):
        at, place = NOW_MS + 20_000 * i, i * 7 % 3
        world.publish(
            "asked",
            {"at": at, "id": f"t{i}", "zone": "north", "driver_id": 1, "distance": float(place), "payment": "card", "member": True},
            at=at,
        )
        world.publish("trips", trip(at + 1000, "north", tip=1.0 + i // 3 % 3, id=f"d{i}"), at=at + 1000)
        world.publish("ended", {"at": at + 2000, "id": f"t{i}", "tipped": CLASSES[place]}, at=at + 2000)
    manifest = world.train("big_tip", until=NOW_MS + HOUR_MS)
    assert manifest.class_names == CLASSES
    found = [world.predict("big_tip", ENTITIES | {"distance": float(place)}, at=NOW_MS + HOUR_MS) for place in range(3)]
    assert [one.chosen for one in found] == CLASSES
    assert [one.output for one in found] == [max(one.probabilities.values()) for one in found]
    assert {one.output_name for one in found} == {"probabilities"}
