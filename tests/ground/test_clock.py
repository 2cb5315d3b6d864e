"""Time."""

import time

from tidemill.clock import Deadline, now_ms


def test_now_is_whole_milliseconds_of_the_wall_clock() -> None:
    """The wall clock is an int between two readings of the standard one."""
    before, now, after = time.time() * 1000, now_ms(), time.time() * 1000
    assert isinstance(now, int)
    assert before - 1 <= now <= after


def test_no_limit_is_none() -> None:
    """A deadline without a limit never expires."""
    deadline = Deadline(None)
    assert deadline.remaining_seconds is None
    assert not deadline.expired


def test_a_spent_deadline_has_nothing_left() -> None:
    """What remains is never negative."""
    deadline = Deadline(0)
    assert deadline.expired
    assert deadline.remaining_seconds == 0.0


def test_a_deadline_counts_down() -> None:
    """A deadline far away is not expired and what remains shrinks."""
    deadline = Deadline(1000)
    first = deadline.remaining_seconds
    second = deadline.remaining_seconds
    assert first is not None
    assert second is not None
    assert 0 < second <= first <= 1000
    assert not deadline.expired
