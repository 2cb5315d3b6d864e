"""Is every declared partition read by some member of a consumer group?

What a member is assigned says nothing about that: a member that returns is given what it had, an assignment is made of the topics that its maker
knew of, and members of different versions want different topics. A partition that nobody reads has no lag and no error of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from time import monotonic

from aiokafka import TopicPartition

from tidemill.kafka.topics import assigned_to_group, committed, offset_ranges
from tidemill.runtime.settings import KafkaSettings

PATIENCE_SECONDS = 10.0
"""For how long a partition may be between two members before it counts as read by nobody: a rebalance waits 6 s for a member that is gone."""

REJOIN_SECONDS = 20.0
"""When a partition has been read by nobody for this long, whoever declares it should join the group anew."""


class Coverage:
    """The declared partitions that no member of a group reads. `unread`: the records that wait in each of them."""

    def __init__(
        self, settings: KafkaSettings, group: str, declared: Iterable[TopicPartition], clock: Callable[[], float] = monotonic
    ) -> None:
        self.unread: dict[TopicPartition, int] = {}
        self._settings = settings
        self._group = group
        self._declared = frozenset(declared)
        self._clock = clock
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """For how long some declared partition has been read by nobody."""
        return 0.0 if self._since is None else self._clock() - self._since

    @property
    def reason(self) -> str | None:
        """What is wrong, for a person; None while nothing is, or not for long."""
        if self.seconds < PATIENCE_SECONDS:
            return None
        named = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(self.unread))
        return f"no member of the group {self._group} has read {named} for {self.seconds:.0f} s"

    async def look(self, ours: AbstractSet[TopicPartition]) -> None:
        """Look again. Costs nothing for a member to which all is assigned. Raises KafkaUnavailable."""
        unread = self._declared - ours
        if unread:
            unread -= await assigned_to_group(self._settings, self._group)
        self.unread = await self._waiting(unread) if unread else {}
        if not unread:
            self._since = None
        elif self._since is None:
            self._since = self._clock()

    async def _waiting(self, partitions: AbstractSet[TopicPartition]) -> dict[TopicPartition, int]:
        done = await committed(self._settings, self._group)
        held = await offset_ranges(self._settings, *{partition.topic for partition in partitions})
        waiting = dict.fromkeys(partitions, 0)
        for partition in partitions & held.keys():
            waiting[partition] = held[partition].end - max(done.get(partition, 0), held[partition].begin)
        return waiting
