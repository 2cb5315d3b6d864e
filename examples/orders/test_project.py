"""How a project is tested: no server, no waiting. Run it with `pytest examples/orders`."""

from pathlib import Path
from typing import Any

import pytest

from tidemill.testing import Reason, Refused, World

DAY_MS = 86_400_000
MONDAY_MS = 1_767_571_200_000  # 5 January 2026


@pytest.fixture
def world() -> World:
    """The project in memory, without any event yet."""
    return World.load(Path(__file__).parent)


def paid(order: str, days_late: float, at: int, shop: str = "north") -> dict[str, Any]:
    """An order that was paid."""
    return {"order": order, "at": at, "shop": shop, "amount": 20.0, "days_late": days_late}


def test_late_is_more_than_three_days(world: World) -> None:
    """The share of late orders, and how it empties as time passes."""
    world.publish("orders.paid", paid("a", 3.0, MONDAY_MS))
    world.publish("orders.paid", paid("b", 4.0, MONDAY_MS + DAY_MS))
    assert world.features("shops", "north")["late_7d"].value == 0.5
    assert world.features("shops", "north", at=MONDAY_MS + 20 * DAY_MS)["late_7d"].status == "NULL_VALUE"
    assert world.features("shops", "north", at=MONDAY_MS + 20 * DAY_MS)["late_30d"].value == 0.5


def test_another_shop_is_not_known(world: World) -> None:
    """Features of an entity without events."""
    world.publish("orders.paid", paid("a", 1.0, MONDAY_MS))
    assert world.features("shops", "south")["count_7d"].status == "NOT_FOUND"


def test_an_order_is_paid_once(world: World) -> None:
    """An event that is published again does not count again."""
    for _ in range(2):
        world.publish("orders.paid", paid("a", 1.0, MONDAY_MS))
    assert world.features("shops", "north")["count_7d"].value == 1


@pytest.mark.slow
def test_a_payment_without_its_delay_is_refused(world: World) -> None:
    """The refusal is the one that ingestion gives."""
    with pytest.raises(Refused) as refused:
        world.publish("orders.paid", {"order": "a", "at": MONDAY_MS, "shop": "north", "amount": 20.0})
    assert (refused.value.reason, refused.value.field) == (Reason.MISSING_FIELD, "days_late")


@pytest.mark.slow
def test_a_shop_that_pays_late_is_predicted_to(world: World) -> None:
    """The pipeline learns from what requests saw at their time, not from what came later, and predicts accordingly."""
    for day in range(60):
        for shop, days_late in (("north", 1.0), ("south", 9.0)):
            order, at = f"{shop}-{day}", MONDAY_MS + day * DAY_MS
            world.publish("orders.placed", {"order": order, "at": at, "shop": shop, "amount": 20.0})
            world.publish("orders.paid", paid(order, days_late, at + DAY_MS // 2, shop))
    examples = world.training_set("pays_late")
    assert len(examples) == 120
    assert not examples.matrix[0, 0] > 0, "the first order's request saw no payment"
    world.train("pays_late")
    north, south = (world.predict("pays_late", {"shop": shop, "amount": 20.0}).output for shop in ("north", "south"))
    assert north < 0.1
    assert south > 0.9
