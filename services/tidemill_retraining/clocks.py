"""The time by which runs begin, rest and end: the machine's, or in a replay that of the requests."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Literal, Self

import msgspec
from aiokafka import TopicPartition

from tidemill.clock import now_ms
from tidemill.kafka.read_to_end import decoded_of, logged, read_to_end
from tidemill.kafka.reader import OccasionalReader
from tidemill.kafka.topics import offset_ranges
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import predictions_topic

ClockName = Literal["machine", "requests"]

log = get_logger(__name__)


class _Timed(msgspec.Struct):
    """Of an answer, the time of its request."""

    time: int


class MachineClock:
    """The time of the machine. Use a clock in `async with`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def catch_up(self) -> None:
        """Learns what time it is; the methods do not wait for it."""

    def now_ms(self) -> int:
        """What time it is, in ms since 1970; 0: not known yet."""
        return now_ms()

    def answers_since_ms(self, step_ms: int) -> int:
        """From when on answers are of a step that was taken at `step_ms` of this clock: their own moments are of the machine."""
        return step_ms


class RequestClock(MachineClock):
    """The time of the newest request that was answered, so that weeks of a replay are weeks, and time stands still while the replay waits.

    Raises KafkaUnavailable and TopicRecreated."""

    def __init__(self, kafka: KafkaSettings, project: str) -> None:
        self._kafka, self._topic = kafka, predictions_topic(project)
        self._stack, self._newest, self._decode = AsyncExitStack(), 0, msgspec.json.Decoder(_Timed).decode
        self._reader: OccasionalReader

    async def __aenter__(self) -> Self:
        log.warning("time is that of the requests, which is for replays only")
        ranges = await offset_ranges(self._kafka, self._topic)
        places: dict[TopicPartition, int] = {place: max(found.begin, found.end - 1) for place, found in ranges.items()}
        self._reader = await self._stack.enter_async_context(OccasionalReader(self._kafka, places))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def catch_up(self) -> None:
        """Reads what was answered since."""
        async for fetched in read_to_end(self._reader):
            self._newest = max((self._newest, *(answer.time for answer in decoded_of(fetched, self._decode, logged))))

    def now_ms(self) -> int:
        """The time of the newest request; 0 before the first."""
        return self._newest

    def answers_since_ms(self, step_ms: int) -> int:
        """Now: when the step was taken is known by the time of requests alone."""
        return now_ms()


def clock_of(name: ClockName, kafka: KafkaSettings, project: str) -> MachineClock:
    """The clock that a setting names."""
    return RequestClock(kafka, project) if name == "requests" else MachineClock()
