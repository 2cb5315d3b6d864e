"""The supervised loop: what is waited for, what is told, what ends it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tidemill.errors import KafkaUnavailable, SettingsError, TidemillError, TopicMismatch
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse


class Body:
    """Work that fails with these errors, one after the other, and then returns 7."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.turns = 0

    async def __call__(self) -> int:
        """One turn."""
        self.turns += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


async def test_until_it_succeeds() -> None:
    """Each failure is told in order, and what the body returns in the end is returned."""
    told: list[Exception] = []
    errors = [KafkaUnavailable("away"), TopicMismatch("shape"), KafkaUnavailable("away again")]
    body = Body(*errors)
    assert await supervise(body, told.append, pause_seconds=0) == 7
    assert (told, body.turns) == (errors, 4)


@given(st.lists(st.sampled_from([KafkaUnavailable, TopicMismatch, SettingsError, ValueError, TimeoutError]), max_size=8))
def test_only_what_is_waited_for_is_waited_for(kinds: list[type[Exception]]) -> None:
    """The loop goes on as long as errors are of the kinds given, and raises the first that is not."""
    waited_for = (KafkaUnavailable, TopicMismatch)
    told: list[Exception] = []
    errors = [kind("x") for kind in kinds]
    first_other = next((error for error in errors if not isinstance(error, waited_for)), None)
    running = supervise(Body(*errors), told.append, waited_for=waited_for, pause_seconds=0)
    if first_other is None:
        assert asyncio.run(running) == 7
        assert told == errors
    else:
        with pytest.raises(type(first_other)):
            asyncio.run(running)
        assert told == errors[: errors.index(first_other)]


async def test_ours_are_waited_for_by_default() -> None:
    """Without a word about it, errors of ours are waited for and no others."""
    with pytest.raises(ZeroDivisionError):
        await supervise(Body(TidemillError("ours"), ZeroDivisionError()), lambda _error: None, pause_seconds=0)


async def test_waiting_is_a_sign_of_life() -> None:
    """All pulses beat at each failure, so that the watchdog leaves who waits alone."""
    pulses = [Pulse("a"), Pulse("b")]

    def told(_error: Exception) -> None:
        for pulse in pulses:
            pulse.tick()
            pulse.tick()

    await supervise(Body(KafkaUnavailable("away")), told, pulses, pause_seconds=0)
    for pulse in pulses:
        assert pulse.silent_seconds == 2
        pulse.tick()
        assert pulse.silent_seconds == 0


async def test_a_board_can_be_told() -> None:
    """A check of the health board takes an error as its reason; one without words is named by its kind."""
    board = HealthBoard("kafka")
    await supervise(
        Body(KafkaUnavailable("no broker", mend="start one"), TimeoutError()),
        lambda error: board.down("kafka", error),
        waited_for=(Exception,),
        pause_seconds=0,
    )
    assert board.missing == {"kafka": "TimeoutError"}
    board.down("kafka", KafkaUnavailable("no broker", mend="start one"))
    assert board.missing == {"kafka": "no broker; start one"}


async def test_an_error_nobody_thought_of_is_logged() -> None:
    """Where everything is waited for, an error that is not ours leaves its trace in the log; one of ours does not."""
    with capture_logs() as lines:
        await supervise(
            Body(ZeroDivisionError("by zero"), KafkaUnavailable("away")), lambda _error: None, waited_for=(Exception,), pause_seconds=0
        )
    assert [(line["event"], repr(line["exc_info"])) for line in lines] == [("a worker begins anew", "ZeroDivisionError('by zero')")]


async def test_it_pauses_and_can_be_cancelled() -> None:
    """Between two turns it pauses; a cancellation ends it there, and is not waited for."""
    body = Body(*(KafkaUnavailable("away") for _ in range(1000)))
    running = asyncio.create_task(supervise(body, lambda _error: None, waited_for=(Exception,), pause_seconds=0.01))
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert 1 <= body.turns <= 12
