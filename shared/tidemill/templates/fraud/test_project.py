"""The project without servers: `pytest`."""

from pathlib import Path
from typing import Any

import pytest
from data import HOUR_MS, events

from tidemill.testing import Refused, World

MONDAY_MS = 1_767_571_200_000  # 5 January 2026


@pytest.fixture
def world() -> World:
    """The project in memory, without any event yet."""
    return World.load(Path(__file__).parent)


def payment(number: int, at: int, **fields: Any) -> dict[str, Any]:
    """A payment by card c1 at shop1."""
    usual = {"card": "c1", "merchant": "shop1", "country": "AT", "amount": 30.0, "online": False}
    return {"payment": f"p{number}", "at": at, **usual, **fields}


def test_what_a_card_did_within_an_hour(world: World) -> None:
    """Payments, amounts and countries; an hour later they are gone from the window."""
    for number, country in enumerate(["AT", "FR", "IT"]):
        world.publish("myproject.paid", payment(number, MONDAY_MS + number * 60_000, country=country, amount=10.0 * number))
    card = world.features("cards", "c1")
    assert (card["count_1h"].value, card["mean_amount_1h"].value, card["max_amount_1h"].value) == (3, 10.0, 20.0)
    assert world.features("places", "c1")["distinct_country_1d"].value == 3
    assert world.features("cards", "c1", at=MONDAY_MS + 2 * HOUR_MS)["count_1h"].value == 0


def test_a_payment_that_is_sent_twice_counts_once(world: World) -> None:
    """It is known by its id."""
    for _ in range(2):
        world.publish("myproject.paid", payment(1, MONDAY_MS))
    assert world.features("merchants", "shop1")["count_1d"].value == 1


def test_a_payment_without_a_card_is_refused(world: World) -> None:
    """The refusal is the one that `POST /events` gives."""
    with pytest.raises(Refused) as refused:
        world.publish("myproject.paid", payment(1, MONDAY_MS, card=None))
    assert refused.value.field == "card"


def test_the_model_tells_a_thief_from_an_owner(world: World) -> None:
    """A question has its truth when the wait is over: the newest payments are no examples, and those without a complaint were none."""
    for known_ms, name, data in events(MONDAY_MS, days=40):
        world.publish(name, data, at=known_ms)
    examples = world.training_set("fraud")
    assert max(examples.times_ms) <= MONDAY_MS - 14 * 24 * HOUR_MS
    assert 0.005 < examples.labels.mean() < 0.06
    assert world.train("fraud").metrics["auc"] > 0.8
    asked = {"card": "c1", "merchant": "shop1", "amount": 30.0, "online": False}
    before = world.predict("fraud", asked, at=MONDAY_MS).output
    for number in range(4):
        at = MONDAY_MS + number * HOUR_MS // 6
        world.publish("myproject.paid", payment(number, at, country="FR", amount=400.0, online=True), at=at)
    after = world.predict("fraud", asked | {"amount": 400.0, "online": True}, at=MONDAY_MS + HOUR_MS * 2 // 3).output
    assert before < 0.05 < after
