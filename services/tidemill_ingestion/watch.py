"""Watching the routing from a task of its own: its lag, whether it is ready, and whether it is stuck."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tidemill.errors import KafkaUnavailable, UnreadPartitions
from tidemill.kafka.coverage import REJOIN_SECONDS, Coverage
from tidemill.kafka.watch import unanswered
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill_ingestion.consumer import EventConsumer

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 3.0
SLOW_SECONDS = 5.0
"""Without progress for this long while events wait, the service is not ready. The watchdog waits longer before it ends the process."""


class IngestionWatch:
    """Reports lag and readiness every second. It beats the pulse unless this process is stuck: unless events wait and none is routed,
    although Kafka answers.

    All declared partitions count, and not only the assigned ones: see `Coverage`.
    """

    def __init__(self, consumer: EventConsumer, board: HealthBoard, kafka: KafkaSettings, pulse: Pulse) -> None:
        self._consumer = consumer
        self._coverage = Coverage(kafka, consumer.group, consumer.declared)
        self._board = board
        self._kafka = kafka
        self._pulse = pulse
        self._positions: dict[TopicPartition, int] = {}
        self._moved = monotonic()
        self._shown: set[TopicPartition] = set()

    async def run(self) -> None:
        """Watch until cancelled. Raises UnreadPartitions when no member reads some partitions for REJOIN_SECONDS.

        The group must be joined again then.
        """
        try:
            await self._watch()
        except asyncio.CancelledError:
            self._show({})  # by other definitions other topics are read
            raise

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    assigned = self._consumer.kafka.assignment()
                    ends = await self._consumer.kafka.end_offsets(assigned)
                    await self._coverage.look(assigned)
                self._board.up("kafka")
            except (KafkaError, KafkaUnavailable, TimeoutError):
                await unanswered(self._kafka, partial(self._board.down, "kafka"), self._pulse, ANSWER_SECONDS)
            else:
                self._report(ends)
            await asyncio.sleep(LOOK_SECONDS)

    def _report(self, ends: dict[TopicPartition, int]) -> None:
        positions = dict(self._consumer.positions)
        lags = {partition: max(0, end - positions.get(partition, 0)) for partition, end in ends.items()}
        lag = sum(lags.values())
        self._show(lags | self._coverage.unread)
        if not lag or positions != self._positions or self._consumer.waits_for:
            self._moved = monotonic()
            self._pulse.beat()
        self._positions = positions
        stuck_seconds = monotonic() - self._moved
        slow = f"{lag} events wait, and none has been routed for {stuck_seconds:.0f} s" if stuck_seconds > SLOW_SECONDS else None
        self._board.report("routing", self._consumer.waits_for or self._coverage.reason or slow)
        if self._coverage.seconds > REJOIN_SECONDS:
            raise UnreadPartitions(self._coverage.reason or "", mend="stop other members of the group that do not declare these events")

    def _show(self, lags: dict[TopicPartition, int]) -> None:
        for topic, partition in self._shown - lags.keys():
            metrics.INGESTION_LAG.remove(topic, str(partition))
        for (topic, partition), lag in lags.items():
            metrics.INGESTION_LAG.labels(topic, str(partition)).set(lag)
        self._shown = set(lags)
