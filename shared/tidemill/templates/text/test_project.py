"""The project without servers: `pytest`."""

from pathlib import Path

import pytest
from data import DAY_MS, events

from tidemill.testing import Refused, World

MONDAY_MS = 1_767_571_200_000  # 5 January 2026


@pytest.fixture
def world() -> World:
    """The project in memory, without any event yet."""
    return World.load(Path(__file__).parent)


def test_how_much_a_sender_has_written(world: World) -> None:
    """Messages that were answered within seven days."""
    for number in range(3):
        at = MONDAY_MS + number * DAY_MS
        world.publish("myproject.answered", {"message": f"m{number}", "at": at, "sender": "s1", "team": "billing"})
    assert world.features("senders", "s1")["count_7d"].value == 3
    assert world.features("senders", "s1", at=MONDAY_MS + 8 * DAY_MS + DAY_MS // 2)["count_7d"].value == 1
    assert world.features("senders", "s2")["count_7d"].status == "NOT_FOUND"


def test_a_message_without_a_text_is_refused(world: World) -> None:
    """The refusal is the one that `POST /events` gives."""
    with pytest.raises(Refused) as refused:
        world.publish("myproject.received", {"message": "m", "at": MONDAY_MS, "sender": "s1", "text": None})
    assert refused.value.field == "text"


def test_the_model_reads_the_words(world: World) -> None:
    """Also in sentences, and beside words, that it was not trained on."""
    for known_ms, name, data in events(MONDAY_MS, days=10):
        world.publish(name, data, at=known_ms)
    assert world.train("team").metrics["accuracy"] > 0.8
    for text, team in (
        ("Where is the courier with the parcel?", "delivery"),
        ("I forgot my password and cannot use the app", "account"),
        ("you took a payment twice, send the refund", "billing"),
    ):
        answer = world.predict("team", {"sender": "nobody", "text": text})
        assert answer.chosen == team
        assert sum(answer.probabilities.values()) == pytest.approx(1)
