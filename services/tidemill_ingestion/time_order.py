"""The order of time between partitions: while there is a backlog, none runs ahead of the others.

After a standstill each partition has hours of events. Read as Kafka gives them, one partition would be through before another begins, and the
events of the other would be hours late for every entity that both have. So what was fetched of one partition is held until the others are as
far. Without a backlog nothing is held. The time of an event is when it became known, so history that is published again with its recorded
times keeps their order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from aiokafka import TopicPartition

from tidemill.routing.envelopes import Headers, given_headers
from tidemill.routing.events import moment
from tidemill.routing.refusals import Refused

SLACK_MS = 5_000
"""So far ahead may a partition be: much less than any window, much more than what lies between partitions that are read as events come."""

PATIENCE_SECONDS = 3.0
"""How long a partition that gives nothing, such as one without a leader, holds up the others."""


class Timed(Protocol):
    """A record of a topic."""

    @property
    def timestamp(self) -> int:
        """When it was published, epoch ms."""

    @property
    def headers(self) -> Headers:
        """Its headers."""


T = TypeVar("T", bound=Timed)


class TimeOrder:
    """What was fetched and is not ready yet, and how far each partition is."""

    def __init__(self) -> None:
        self._held: dict[TopicPartition, list[Timed]] = {}
        self._seen_ms: dict[TopicPartition, int] = {}
        self._missed: dict[TopicPartition, float] = {}

    def forget(self) -> None:
        """Gives up what is held: it is fetched again."""
        self._held.clear()
        self._seen_ms.clear()
        self._missed.clear()

    def wanted(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        """Of which partitions to fetch: those of which nothing is held."""
        return [partition for partition in partitions if partition not in self._held]

    def ready(
        self, fetched: Mapping[TopicPartition, Sequence[Timed]], lagging: Collection[TopicPartition], seconds: float
    ) -> dict[TopicPartition, list[Timed]]:
        """What may be routed now, in the order of each partition. `lagging`: partitions that have more than was fetched; `seconds`: of a clock."""
        for partition, records in fetched.items():
            self._held[partition] = [*records]
            self._seen_ms[partition] = known_ms(records[-1])
            self._missed.pop(partition, None)
        slowest = self._slowest(lagging, seconds)
        if slowest is None:
            ready, self._held = self._held, {}
            return ready
        bound_ms = self._seen_ms.get(slowest, -math.inf) + SLACK_MS
        ready = {}
        for partition, records in [*self._held.items()]:
            count = len(records) if partition == slowest else _up_to(records, bound_ms)
            if count:
                ready[partition] = records[:count]
                self._held[partition] = records[count:]
                if not self._held[partition]:
                    del self._held[partition]
        return ready

    def _slowest(self, lagging: Collection[TopicPartition], seconds: float) -> TopicPartition | None:
        """The partition for which the others wait. One that gives nothing for too long is not waited for."""
        for partition in [*self._missed]:
            if partition not in lagging:
                del self._missed[partition]
        waited_for = []
        for partition in lagging:
            if partition in self._held or seconds - self._missed.setdefault(partition, seconds) < PATIENCE_SECONDS:
                waited_for.append(partition)
        return min(waited_for, key=lambda partition: self._seen_ms.get(partition, -math.inf), default=None)


def known_ms(record: Timed) -> int:
    """When an event became known: as its publisher recorded it, else when it was published."""
    given = given_headers(record.headers).get("ce_recordedtime") if record.headers else None
    if not given:
        return record.timestamp
    text = given.decode(errors="replace")
    try:
        return moment(int(text) if text.isdecimal() else text, "recordedtime")
    except (Refused, ValueError):
        return record.timestamp  # the event is refused for it


def slices(wave: Mapping[TopicPartition, Sequence[T]]) -> Iterator[tuple[TopicPartition, Sequence[T]]]:
    """The records of a wave, so that none is more than the slack newer than one of another partition after it."""
    begins = dict.fromkeys(wave, 0)
    while begins:
        bound_ms = min(known_ms(wave[partition][begin]) for partition, begin in begins.items()) + SLACK_MS
        for partition, begin in [*begins.items()]:
            records = wave[partition]
            end = _up_to(records, bound_ms, begin)
            if end > begin:
                yield partition, records[begin:end] if begin or end < len(records) else records
            if end == len(records):
                del begins[partition]
            else:
                begins[partition] = end


def _up_to(records: Sequence[Timed], bound_ms: float, begin: int = 0) -> int:
    """The first place from `begin` on of a record that became known after a moment; the end without one."""
    return next((place for place in range(begin, len(records)) if known_ms(records[place]) > bound_ms), len(records))
