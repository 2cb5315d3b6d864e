"""Clocks that are wrong: an event that says it lies ahead, and a question about a moment before the newest event."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, age, count, last, sum
from tidemill.declarations.project import Project
from tidemill.kernel.fold import typed_decoder
from tidemill.streams.topics import view_topic
from tidemill.testing import World

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
NOW_MS = 1_750_000_000_000 // DAY_MS * DAY_MS + 20 * HOUR_MS
PAID = Event("paid", {"shop": str, "at": int, "amount": int}, time="at")
SHOPS = FeatureView("shops", PAID, "shop", [count(), sum("amount"), last("amount"), age()], windows=["30m", "6h"])
LONG = FeatureView(
    "long", PAID, "shop", [count(), count("amount", windows=["lifetime"], name="ever")], windows=["30d", "1d"], tiles={"1d": "6h"}
)
WAITING = FeatureView("waiting", PAID, "shop", [count()], windows=["30m", "6h"], ahead="1h")
PROJECT = Project("clocks", {"paid": PAID}, {view.name: view for view in (SHOPS, LONG, WAITING)})


def served(world: World, view: str, at_ms: int) -> dict[str, tuple[Any, str]]:
    """Value and status of each feature of the one shop."""
    return {name: (found.value, found.status) for name, found in world.features(view, "a", at=at_ms).items()}


def paid(world: World, time_ms: int, known_ms: int, amount: int = 1) -> None:
    """One payment, as its publisher tells it."""
    world.publish("paid", {"shop": "a", "at": time_ms, "amount": amount}, at=known_ms)


def test_one_phone_is_fifty_minutes_ahead() -> None:
    """Of twenty-one payments all count at once, none is late, and the age is that of the newest one."""
    world = World(PROJECT)
    paid(world, NOW_MS + 50 * MINUTE_MS, NOW_MS, 7)
    for minute in range(1, 21):
        paid(world, NOW_MS + minute * MINUTE_MS, NOW_MS + minute * MINUTE_MS)
    at_ms = NOW_MS + 20 * MINUTE_MS + 1
    found = served(world, "shops", at_ms)
    assert found["count_30m"] == found["count_6h"] == (21, "PRESENT")
    assert found["sum_amount_6h"] == (27, "PRESENT")
    assert found["last_amount"] == (1, "PRESENT")
    assert found["age"] == (0.001, "PRESENT")
    assert world.dead_letters == []
    assert served(world, "waiting", at_ms)["count_30m"] == (20, "PRESENT")
    assert served(world, "waiting", NOW_MS + 50 * MINUTE_MS)["count_6h"] == (21, "PRESENT")


def test_a_clock_jumps_back_an_hour() -> None:
    """The publisher's clock, by which it stamps events and records, is set back: what it tells then is an hour older, counts in its own hour,
    and nothing is late, INVALID or refused; the newest event stays the newest."""
    world = World(PROJECT)
    before = [NOW_MS + minute * MINUTE_MS for minute in range(10)]
    for time_ms in (*before, *(time_ms - HOUR_MS + 1 for time_ms in before)):
        paid(world, time_ms, time_ms, amount=time_ms // MINUTE_MS % 100)
    found = served(world, "shops", before[-1] + 1)
    assert found["count_30m"] == (10, "PRESENT")
    assert found["count_6h"] == (20, "PRESENT")
    assert found["last_amount"] == (before[-1] // MINUTE_MS % 100, "PRESENT")
    assert found["age"] == (0.001, "PRESENT")
    assert served(world, "long", before[-1] + 1)["ever"] == (20, "PRESENT")
    assert world.dead_letters == []


@given(st.lists(st.tuples(st.integers(-5, 60), st.booleans()), min_size=1, max_size=30))
def test_nobody_suffers_from_a_clock_ahead(payments: list[tuple[int, bool]]) -> None:
    """However many clocks are ahead within `future`: every event counts once it is known, and no value is INVALID at the present."""
    world = World(PROJECT)
    for number, (minutes, ahead) in enumerate(payments, 1):
        known_ms = NOW_MS + number * MINUTE_MS // 2
        paid(world, known_ms + (minutes * MINUTE_MS if ahead else 0), known_ms)
        found = served(world, "shops", known_ms)
        assert found["count_6h"] == (number, "PRESENT")
        assert all(status == "PRESENT" for _, status in found.values())
        assert found["age"][0] >= 0
    assert world.dead_letters == []


def test_the_log_says_when_an_event_counts() -> None:
    """Views whose events wait and views whose events do not are told different times of the same event."""
    world = World(PROJECT)
    paid(world, NOW_MS + 50 * MINUTE_MS, NOW_MS)
    told = {}
    for view in (SHOPS, WAITING):
        (record,) = [r for p in world.kafka.partitions(view_topic("clocks", view.log)) for r in p.read(0)]
        told[view.name] = typed_decoder(view).decode(record.value or b"").time
    assert told == {"shops": NOW_MS, "waiting": NOW_MS + 50 * MINUTE_MS}


@pytest.mark.parametrize("back_ms", [MINUTE_MS, HOUR_MS, 2 * HOUR_MS - 1])
def test_a_moment_before_the_newest_event(back_ms: int) -> None:
    """In the tile of the newest event nobody knows how many events lie before a moment: it is said, and no later event is counted."""
    world = World(PROJECT)
    paid(world, NOW_MS - DAY_MS, NOW_MS - DAY_MS)
    paid(world, NOW_MS, NOW_MS)
    found = served(world, "long", NOW_MS - back_ms)
    assert found == {"count_30d": (None, "INVALID"), "count_1d": (None, "INVALID"), "ever": (None, "INVALID")}
    assert served(world, "long", NOW_MS) == {"count_30d": (2, "PRESENT"), "count_1d": (2, "PRESENT"), "ever": (2, "PRESENT")}


def test_a_tile_without_events_is_known() -> None:
    """A moment in a tile in which nothing happened is answered, although events came after it."""
    world = World(PROJECT)
    paid(world, NOW_MS - DAY_MS, NOW_MS - DAY_MS)
    paid(world, NOW_MS, NOW_MS)
    assert served(world, "long", NOW_MS - 12 * HOUR_MS)["count_1d"] == (1, "PRESENT")


@pytest.mark.parametrize(("back_ms", "status"), [(0, "PRESENT"), (5_000, "PRESENT"), (5_001, "INVALID")])
def test_clocks_differ_a_little(back_ms: int, status: str) -> None:
    """A service whose clock is some seconds behind the newest event's answers about the present."""
    world, newest_ms = World(PROJECT), NOW_MS + MINUTE_MS
    paid(world, newest_ms, newest_ms)
    assert {found for _, found in served(world, "shops", newest_ms - back_ms).values()} == {status}
