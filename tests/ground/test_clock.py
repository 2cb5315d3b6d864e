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
    assert not deadline.expired


def test_a_spent_deadline_is_expired() -> None:
    """No time at all is over at once."""
    assert Deadline(0).expired


def test_a_deadline_far_away_is_not_expired() -> None:
    """It is seconds that are counted, from now on."""
    assert not Deadline(1000).expired
    deadline = Deadline(0.01)
    time.sleep(0.02)
    assert deadline.expired
