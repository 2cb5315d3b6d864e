"""The project without servers: `pytest`."""

from pathlib import Path

import pytest
from data import DAY_MS, events

from tidemill.testing import Refused, World

MONDAY_MS = 1_767_571_200_000  # 5 January 2026
BOOKING = {"booking": "b", "at": MONDAY_MS, "hotel": "hill", "channel": "web", "nights": 2, "price": 120.0, "days_ahead": 5}


@pytest.fixture
def world() -> World:
    """The project in memory, without any event yet."""
    return World.load(Path(__file__).parent)


def test_the_share_of_cancelled_bookings(world: World) -> None:
    """Over seven days, and no longer."""
    for number, cancelled in enumerate([True, False, False, True]):
        world.publish("myproject.ended", {"booking": f"b{number}", "at": MONDAY_MS + number, "hotel": "hill", "cancelled": cancelled})
    assert world.features("hotels", "hill")["cancelled_7d"].value == 0.5
    assert world.features("hotels", "hill", at=MONDAY_MS + 8 * DAY_MS)["cancelled_7d"].status == "NULL_VALUE"
    assert world.features("hotels", "garden")["count_7d"].status == "NOT_FOUND"


def test_a_booking_without_a_price_is_refused(world: World) -> None:
    """The refusal is the one that `POST /events` gives."""
    with pytest.raises(Refused) as refused:
        world.publish("myproject.booked", {name: value for name, value in BOOKING.items() if name != "price"})
    assert refused.value.field == "price"


def test_the_model_tells_bookings_apart(world: World) -> None:
    """Trained on invented history, it predicts what that was made by."""
    for known_ms, name, data in events(MONDAY_MS, days=20):
        world.publish(name, data, at=known_ms)
    assert world.train("cancels").metrics["auc"] > 0.6
    safe, risky = (
        world.predict("cancels", {**BOOKING, "hotel": hotel, "channel": channel, "days_ahead": ahead}).output
        for hotel, channel, ahead in (("harbour", "phone", 2), ("hill", "agency", 80))
    )
    assert safe < 0.4
    assert risky > 0.6
