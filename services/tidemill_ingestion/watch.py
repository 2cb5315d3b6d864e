"""Looking at the routing from outside its own path: lag, readiness, and whether it is stuck."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tidemill.kafka.watch import unanswered
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill_ingestion.consumer import EventConsumer

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 3.0
SLOW_SECONDS = 5.0
"""Without progress for this long, while events wait, the service is not ready; the watchdog's patience is longer."""


class Watch:
    """Reports lag and readiness every second, and beats as long as all is well or the reason why not lies elsewhere."""

    def __init__(self, consumer: EventConsumer, board: HealthBoard, kafka: KafkaSettings, pulse: Pulse) -> None:
        self._consumer = consumer
        self._board = board
        self._kafka = kafka
        self._pulse = pulse
        self._positions: dict[TopicPartition, int] = {}
        self._moved = monotonic()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    ends = await self._consumer.kafka.end_offsets(self._consumer.kafka.assignment())
                self._board.up("kafka")
            except (KafkaError, TimeoutError):
                await unanswered(self._kafka, partial(self._board.down, "kafka"), self._pulse, ANSWER_SECONDS)
            else:
                self._report(ends)
            await asyncio.sleep(LOOK_SECONDS)

    def _report(self, ends: dict[TopicPartition, int]) -> None:
        positions = dict(self._consumer.positions)
        lag = 0
        for partition, end in ends.items():
            behind = max(0, end - positions.get(partition, 0))
            lag += behind
            metrics.INGESTION_LAG.labels(partition.topic, str(partition.partition)).set(behind)
        if not lag or positions != self._positions:
            self._moved = monotonic()
            self._pulse.beat()
        self._positions = positions
        stuck_seconds = monotonic() - self._moved
        slow = f"{lag} events wait, and none has been routed for {stuck_seconds:.0f} s"
        self._board.report("routing", slow if stuck_seconds > SLOW_SECONDS else None)
