"""The clock passes a time only when everything has been read that was in the log when that time was first seen."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from structlog.testing import capture_logs

from tidemill.declarations.models import Wait
from tidemill_predlog import joiner
from tidemill_predlog.join import Join, LoggedPrediction
from tidemill_predlog.joiner import Clock

PREDICTIONS, OUTCOMES = TopicPartition("p", 0), TopicPartition("o", 0)


class Log:
    """Two partitions: what has been read of them, and where they end."""

    def __init__(self) -> None:
        self.next = {PREDICTIONS: 0, OUTCOMES: 0}
        self.written = {PREDICTIONS: 0, OUTCOMES: 0}
        self.asked = 0

    async def ends(self) -> dict[TopicPartition, int]:
        """Where the partitions end now."""
        self.asked += 1
        return dict(self.written)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joiner, "_BARRIER_SECONDS", -1)


async def test_clock_waits_for_the_slower_partition() -> None:
    """A late time in one partition gives nobody up while the other has records from before to be read."""
    log, join, clock = Log(), Join({"m": Wait(100)}), Clock(0)
    join.predict(LoggedPrediction("a", "m", "1", "s", 0, 0.5))
    log.next[PREDICTIONS] = log.written[PREDICTIONS] = 2
    log.written[OUTCOMES] = 5
    clock.now = 1000
    await clock.drive(join, log)
    log.written[OUTCOMES] = 9  # what comes later is not waited for
    log.next[OUTCOMES] = 4
    await clock.drive(join, log)
    assert (join.clock, join.pending["m"]) == (0, 1)
    log.next[OUTCOMES] = 5
    clock.now = 2000
    await clock.drive(join, log)
    assert (join.clock, join.pending["m"]) == (1000, 0)
    log.next[OUTCOMES] = 9
    await clock.drive(join, log)
    assert join.clock == 2000


async def test_kafka_is_not_asked_when_time_stands_still() -> None:
    """Without a later time the ends are asked for only every few seconds."""
    log, join, clock = Log(), Join({"m": Wait(100)}, 50), Clock(50)
    for _ in range(5):
        await clock.drive(join, log)
    assert log.asked <= 1


async def test_time_that_leaps_is_told() -> None:
    """A request of now amid a replay of the past ends the waits of all others; a step within the waits is nothing to tell."""
    day, log, waits = 86_400_000, Log(), {"m": Wait(3_600_000)}
    join, clock = Join(waits, day), Clock(day)
    join.predict(LoggedPrediction("a", "m", "1", "s", day + 1, 0.5))
    for now, said in ((day + 60_000, []), (900 * day, [("1970-01-02T00:01:00Z", "1972-06-19T00:00:00Z", 1)])):
        clock.now = now
        with capture_logs() as lines:
            await clock.drive(join, log)
            await clock.drive(join, log)
        assert [(line["before"], line["now"], line["given_up"]) for line in lines] == said
