"""Is every declared partition read by some member of a consumer group?

The assignment of one member cannot tell: a member that comes back gets its old assignment, the leader of a group assigns only the topics
that it knew, and members of different versions want different topics. A partition that no member reads shows no lag and no error by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from time import monotonic

from aiokafka import TopicPartition

from tidemill.kafka.topics import assigned_to_group, committed, offset_ranges
from tidemill.runtime.settings import KafkaSettings

PATIENCE_SECONDS = 10.0
"""A partition counts as unread when no member has had it for this long: a rebalance waits 6 s for a dead member."""

REJOIN_SECONDS = 20.0
"""When a partition has been unread for this long, a member that declares it should join the group again."""


class Coverage:
    """The declared partitions that no member of a group reads. `unread`: how many records wait in each of them.

    A topic may have fewer partitions than are declared; those that it does not have need no reader.
    """

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
        """For how long some declared partition has been unread."""
        return 0.0 if self._since is None else self._clock() - self._since

    @property
    def reason(self) -> str | None:
        """What is wrong, for a person; None while all is well, or within PATIENCE_SECONDS."""
        if self.seconds < PATIENCE_SECONDS:
            return None
        named = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(self.unread))
        return f"no member of the group {self._group} has read {named} for {self.seconds:.0f} s"

    async def look(self, ours: AbstractSet[TopicPartition]) -> None:
        """Look again. This asks Kafka nothing when all partitions are `ours`. Raises KafkaUnavailable."""
        unread = self._declared - ours
        if unread:
            unread -= await assigned_to_group(self._settings, self._group)
        self.unread = await self._waiting(unread) if unread else {}
        if not self.unread:
            self._since = None
        elif self._since is None:
            self._since = self._clock()

    async def _waiting(self, partitions: AbstractSet[TopicPartition]) -> dict[TopicPartition, int]:
        done = await committed(self._settings, self._group)
        held = await offset_ranges(self._settings, *{partition.topic for partition in partitions})
        topics = {partition.topic for partition in held}
        waiting = {partition: 0 for partition in partitions if partition in held or partition.topic not in topics}
        for partition in partitions & held.keys():
            waiting[partition] = held[partition].end - max(done.get(partition, 0), held[partition].begin)
        return waiting
