"""Ask, then publish (docs/models.md): a request sees what a row of the training set has if it comes before the event that asks."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

from tidemill.testing import World

SHOP = Path(__file__).parents[2] / "examples" / "shop"
DAY_MS = 86_400_000
MONDAY_MS = 1_767_571_200_000
Row = dict[str, float | None]


def told(at_ms: int) -> str:
    """A moment as a publisher writes it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


def seen(world: World, customer: str, at_ms: int) -> Row:
    """What a request of this moment sees, by the names of the model's inputs."""
    found = world.features("customers", customer, at=at_ms)
    return {f"customers__{name}": one.value for name, one in found.items()}


def asked_and_published(world: World) -> tuple[dict[int, Row], dict[int, Row]]:
    """A year of purchases. What each request saw before its purchase was published, and what it would have seen afterwards, by moment."""
    draw = random.Random(4)
    before, after = {}, {}
    moments = sorted(draw.sample(range(0, 365 * DAY_MS, 1000), 120))
    for number, at_ms in enumerate(MONDAY_MS + moment for moment in moments):
        customer = f"c{draw.randrange(8)}"
        before[at_ms] = seen(world, customer, at_ms)
        purchase = {"order": f"o{number}", "at": told(at_ms), "customer": customer, "cds": draw.randint(1, 9), "dollars": float(number)}
        world.publish("bought", purchase, at=at_ms)
        after[at_ms] = seen(world, customer, at_ms)
    return before, after


def test_a_request_before_its_event_sees_what_training_sees() -> None:
    """Each row of the training set is what the request saw before the purchase was published, and none is what it would have seen then."""
    world = World.load(SHOP)
    before, after = asked_and_published(world)
    rows = world.training_set("returns").table().to_pylist()
    assert len(rows) > 100
    for row in rows:
        at_ms = int(row["time"].timestamp() * 1000)
        inputs = {name: row[name] for name in before[at_ms]}
        assert inputs == before[at_ms]
        assert inputs != after[at_ms]


def test_a_purchase_is_no_answer_to_its_own_question() -> None:
    """A customer who never comes back has not bought again, though the purchase itself came after the request."""
    world = World.load(SHOP)
    for customer, day in (("once", 0), ("twice", 1), ("twice", 9), ("other", 99)):
        at_ms = MONDAY_MS + day * DAY_MS
        purchase = {"order": f"{customer}-{day}", "at": told(at_ms), "customer": customer, "cds": 1, "dollars": 1.0}
        world.publish("bought", purchase, at=at_ms + 700)
    rows = [(row["subject"], row["label"]) for row in world.training_set("returns").table().to_pylist()]
    assert rows == [("once", 0.0), ("twice", 1.0), ("twice", 0.0)]
