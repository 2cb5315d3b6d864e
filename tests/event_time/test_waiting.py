"""What a view with `ahead` does with an event whose time has not come, and the exact bound of duplicates."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.event_time.world import AT_ONCE, HAPPENED, HOUR_MS, LATELY, MINUTE_MS, PROJECT, START_MS, WAITING

from tidemill import FeatureView, count
from tidemill.kernel.packed import EntityState
from tidemill.kernel.served import serve
from tidemill.kernel.view import Applied, Reading, ViewKernel
from tidemill.records import DeadLetterRecord, decoder
from tidemill.routing.router import Router

KERNEL = ViewKernel(WAITING)
NAMES = [feature.name for feature in WAITING.served]


def apply(state: EntityState, minutes: float, x: int | None = 1, kernel: ViewKernel = KERNEL, event_id: str | None = None) -> Applied:
    """Folds an event so many minutes after the start."""
    return kernel.apply(state, START_MS + int(minutes * MINUTE_MS), event_id, SimpleNamespace(x=x, id=event_id, word=None))


def read(state: EntityState, minutes: float, kernel: ViewKernel = KERNEL) -> Reading:
    """A reading so many minutes after the start, from the stored bytes and from the state, which must say the same."""
    time_ms = START_MS + int(minutes * MINUTE_MS)
    reading = kernel.read(kernel.encode(state), time_ms)
    assert repr(kernel.read_state(state, time_ms)) == repr(reading)
    return reading


def value(reading: Reading, name: str) -> float:
    """One feature by its name."""
    return reading.values[NAMES.index(name)]


def test_an_event_waits_for_its_tile() -> None:
    """It is in no window before its tile begins, and in every window that touches its tile from then on; a longer tile begins earlier."""
    state = KERNEL.new_state()
    apply(state, 0, 5)
    apply(state, 87, 7)
    for minutes, short, long in ((0, 1, 1), (20, 1, 1), (79.99, 0, 1), (80, 0, 2), (84.99, 0, 2), (85, 1, 2), (87, 1, 2)):
        reading = read(state, minutes)
        assert (value(reading, "count_20m"), value(reading, "count_5h")) == (short, long)
        assert all(reading.complete)
    assert math.isnan(value(read(state, 60), "last_x_20m"))
    assert value(read(state, 84.99), "last_x_2h") == 5
    assert value(read(state, 85), "last_x_2h") == 7


def test_what_waits_has_no_negative_age() -> None:
    """In the tile of its time an event that is still ahead has age 0."""
    state = KERNEL.new_state()
    apply(state, 0)
    apply(state, 87)
    ages = [value(read(state, minutes), "age_2h") for minutes in (10, 84.99, 85, 87, 90)]
    assert ages == pytest.approx([600, 84.99 * 60, 0, 0, 180])


def test_what_waits_keeps_nothing_from_expiring() -> None:
    """The age for ttl is that of the newest event seen; an entity of which all still waits is not found."""
    state = KERNEL.new_state()
    apply(state, 400)
    assert serve(WAITING, read(state, 350), START_MS + 350 * MINUTE_MS).statuses == ["NOT_FOUND"] * len(NAMES)
    state = KERNEL.new_state()
    apply(state, 0)
    apply(state, 440)
    assert read(state, 355).newest_ms == START_MS
    assert set(serve(WAITING, read(state, 360), START_MS + 360 * MINUTE_MS).statuses) == {"PRESENT", "NULL_VALUE"}
    assert serve(WAITING, read(state, 361), START_MS + 361 * MINUTE_MS).statuses == ["OUTSIDE_MAX_AGE"] * len(NAMES)
    assert serve(WAITING, read(state, 440), START_MS + 440 * MINUTE_MS).newest_ms == START_MS + 440 * MINUTE_MS


def test_an_idle_entity_is_not_forgotten_for_an_event_that_waits() -> None:
    """Its old events are beyond every tile, but that it had some, and when, is still known; a late one among them counts too."""
    state = KERNEL.new_state()
    apply(state, 0)
    apply(state, 10 * 24 * 60)
    assert read(state, 10 * 24 * 60 - 90).newest_ms == START_MS
    assert value(read(state, 10 * 24 * 60 - 90), "count_5h") == 0
    assert apply(state, 10 * 24 * 60 - 380) is Applied.CORRECTED
    assert read(state, 10 * 24 * 60 - 90).newest_ms == START_MS + (10 * 24 * 60 - 380) * MINUTE_MS


def test_what_waits_makes_nothing_of_the_present_late() -> None:
    """The horizon reaches as much further back as events may wait: an event is late only beyond both."""
    state = KERNEL.new_state()
    apply(state, 90)
    assert apply(state, -300) is Applied.CORRECTED
    assert apply(state, -300.01) is Applied.LATE
    assert KERNEL.horizon_ms == 5 * HOUR_MS + 90 * MINUTE_MS


def test_views_that_let_events_wait_differently_are_different() -> None:
    """`ahead` is a part of the definition; without it a value is stored as before, without the place for what passed."""
    same = {"windows": ["1h"], "partitions": 1}
    definitions = {ViewKernel(FeatureView("v", HAPPENED, "who", [count()], ahead=ahead, **same)).definition for ahead in (None, "1m", "2m")}  # type: ignore[arg-type]
    assert len(definitions) == 3
    plain, waiting = (ViewKernel(FeatureView("v", HAPPENED, "who", [count()], ahead=ahead, **same)) for ahead in (None, "1m"))  # type: ignore[arg-type]
    lengths = []
    for kernel in (plain, waiting):
        state = kernel.new_state()
        apply(state, 0, kernel=kernel)
        lengths.append(len(kernel.encode(state)))
    assert lengths[1] - lengths[0] == 8 + 8  # what passed, and the newest time of the open tile


@pytest.mark.parametrize("dedupe", [1, 2, 8, 255])
def test_the_bound_of_duplicates(dedupe: int) -> None:
    """An id is known until as many other ids were folded after it as the view keeps, and not one event longer."""
    kernel = ViewKernel(FeatureView("v", HAPPENED, "who", [count()], windows=["5h"], dedupe=dedupe))
    state = kernel.new_state()
    apply(state, 0, kernel=kernel, event_id="first")
    for i in range(dedupe - 1):
        apply(state, 1, kernel=kernel, event_id=f"other{i}")
    assert apply(state, 1, kernel=kernel, event_id="first") is Applied.DUPLICATE
    apply(state, 1, kernel=kernel, event_id=None)
    assert apply(state, 1, kernel=kernel, event_id="first") is Applied.DUPLICATE, "an event without an id takes no place"
    apply(state, 1, kernel=kernel, event_id="one more")
    state = kernel.decode(kernel.encode(state))
    assert apply(state, 1, kernel=kernel, event_id="first") is Applied.FOLDED


def test_a_late_event_takes_no_place_among_the_ids() -> None:
    """An event that is refused is judged late before its id is looked at, and its id is not kept."""
    kernel = ViewKernel(FeatureView("v", HAPPENED, "who", [count()], windows=["1h"], dedupe=1))
    state = kernel.new_state()
    apply(state, 120, kernel=kernel, event_id="a")
    assert apply(state, 0, kernel=kernel, event_id="b") is Applied.LATE
    assert apply(state, 0, kernel=kernel, event_id="a") is Applied.LATE
    assert apply(state, 120, kernel=kernel, event_id="a") is Applied.DUPLICATE


def published(ahead_ms: int, who: str = "a") -> tuple[list[str], list[DeadLetterRecord], Router]:
    """The topics and dead letters that ingestion makes of an event that lies so far ahead."""
    router, known_ms = Router(PROJECT), START_MS
    data = json.dumps({"who": who, "at": known_ms + ahead_ms, "x": 1}).encode()
    routed = router.route("happened", 3, 41, known_ms, b"key", data, [])
    letters = [decoder(DeadLetterRecord).decode(value) for topic, _, _, value in routed if topic == "world.dead-letters"]
    return [topic for topic, *_ in routed if topic != "world.dead-letters"], letters, router


@given(st.integers(-HOUR_MS, 4 * HOUR_MS) | st.sampled_from([0, 1, 90 * MINUTE_MS, 90 * MINUTE_MS + 1, 3 * HOUR_MS, 3 * HOUR_MS + 1]))
def test_ingestion_refuses_for_a_view_what_it_lets_not_wait(ahead_ms: int) -> None:
    """Up to `ahead` every view gets its record; beyond it this view gets a dead letter, the others their record; beyond `future` nobody."""
    topics, letters, router = published(ahead_ms)
    waiting, *others = (f"world.view.{view.log}" for view in (WAITING, AT_ONCE, LATELY))
    if ahead_ms > 3 * HOUR_MS:
        assert (topics, [letter.view for letter in letters]) == ([], [None])
    elif ahead_ms > 90 * MINUTE_MS:
        assert (topics, [letter.view for letter in letters]) == (others, ["waiting"])
    else:
        assert (sorted(topics), letters) == (sorted([*others, waiting]), [])
    assert sum(router.refused.values()) == len(letters)


def test_the_letter_of_an_event_too_far_ahead_names_view_and_place() -> None:
    """Reason, view, position and the event as it came; the same event routed again gives the same letter."""
    _, (letter,), router = published(2 * HOUR_MS)
    assert (letter.reason, letter.view, letter.source, letter.known, letter.key) == (
        "future_time",
        "waiting",
        ("happened", 3, 41),
        START_MS,
        "key",
    )
    assert (
        letter.detail
        == f"its time is 7200000 ms ahead of the moment it became known ({START_MS}), more than 90m (ahead= of view 'waiting')"
    )
    assert router.refused == {("happened", "future_time"): 1}
    assert published(2 * HOUR_MS)[1] == [letter]
