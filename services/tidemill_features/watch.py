"""Watching a worker from a separate task: its lag, whether it is ready, and whether it is stuck."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from tidemill.errors import KafkaUnavailable, StoreError, StoreUnavailable, UnreadPartitions
from tidemill.kafka.coverage import REJOIN_SECONDS, Coverage
from tidemill.kafka.watch import unanswered
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill_features.faust_transport import Consumer
from tidemill_features.worker import Worker

log = get_logger(__name__)

FIRST_LOOK_SECONDS, LOOK_SECONDS = 0.1, 1.0  # the first pause; each is twice as long as the one before, up to the last
ANSWER_SECONDS = 5.0
JOIN_SECONDS = 10.0
"""The board hears that partitions are not placed yet once this takes longer than it should when a worker begins: anew, by other
definitions, or for the first time."""


class FoldWatch:
    """Reports lag and readiness every second. The pulse beats while all is well, or while the worker waits for Kafka or Redis.

    It looks at all declared partitions, not only at the assigned ones: see `Coverage`.
    """

    def __init__(self, app: faust.App, worker: Worker, board: HealthBoard, kafka: KafkaSettings, pulse: Pulse) -> None:
        self._app = app
        self._worker = worker
        self._board = board
        self._kafka = kafka
        self._pulse = pulse
        self._coverage = Coverage(kafka, app.conf.id, worker.declared)
        self._positions: dict[TP, int] = {}
        self._shown: set[TP] = set()
        self._began = monotonic()

    async def run(self) -> None:
        """Look until cancelled. Raises UnreadPartitions when a partition has been unread for REJOIN_SECONDS: join the group again."""
        try:
            await self._look()
        except asyncio.CancelledError:
            self._show({})  # by other definitions other partitions are read
            raise

    async def _look(self) -> None:
        pause = FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK_SECONDS)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    lags = await self._lags()
                    await self._coverage.look(self._consumer.assignment())
                self._board.up("kafka")
            except (KafkaError, KafkaUnavailable, ConsumerNotStarted, TimeoutError):
                await unanswered(self._kafka, partial(self._board.down, "kafka"), self._pulse, ANSWER_SECONDS)
            else:
                self._show(lags | {TP(*tp): lag for tp, lag in self._coverage.unread.items()})
                self._report(lags)
                await self._compare(lags)

    @property
    def _consumer(self) -> Consumer:
        consumer = self._app.consumer
        assert isinstance(consumer, Consumer)
        return consumer

    async def _lags(self) -> dict[TP, int]:
        """Records not yet folded, by partition."""
        placed = self._consumer.delivery.placed
        ends = await self._consumer.highwaters(*placed) if placed else {}
        return {tp: ends[tp] - at for tp, at in self._worker.next.items() if tp in ends}

    def _show(self, lags: dict[TP, int]) -> None:
        for tp in self._shown - lags.keys():
            metrics.FEATURES_LAG.remove(self._worker.view(tp), str(tp.partition))
        for tp, lag in lags.items():
            metrics.FEATURES_LAG.labels(self._worker.view(tp), tp.partition).set(lag)
        self._shown = set(lags)

    async def _compare(self, lags: dict[TP, int]) -> None:
        """Place partitions again whose stored fence has changed without this worker."""
        try:
            displaced = await self._worker.displaced(lags.keys())
        except (StoreUnavailable, StoreError):
            return
        for tp in displaced & self._consumer.delivery.placed:
            log.warning("the store lost what was applied, or somebody changed it", topic=tp.topic, partition=tp.partition)
            metrics.REWINDS.labels(self._worker.view(tp), "displaced").inc()
            self._consumer.delivery.break_chain(tp)

    def _report(self, lags: dict[TP, int]) -> None:
        worker, joined = self._worker, self._app.consumer_generation_id > 0 and not self._app.rebalancing
        assigned = self._consumer.assignment()
        refused = {tp: reason for tp, reason in worker.refused.items() if tp in assigned}
        waiting = assigned - lags.keys() - refused.keys()
        joining = [f"{tp.topic}[{tp.partition}] has no position yet" for tp in waiting] if joined else ["joining the consumer group"]
        if worker.recalling:
            joining = [f"reading the ids that the logs of {worker.recalling} partitions had lately"]
        faults = [*(refused.values() if joined else ()), worker.held_up or "", self._coverage.reason or ""]
        if not joining or any(faults) or monotonic() > self._began + JOIN_SECONDS:
            self._board.report("partitions", "; ".join(filter(None, joining + faults)) or None)
        positions = {tp: at for tp, at in worker.next.items() if tp in lags}
        idle = not joining and not any(lags.values())
        if idle or positions != self._positions or worker.recalling or worker.held_up or "redis" in self._board.missing:
            self._pulse.beat()
        self._positions = positions
        if self._coverage.seconds > REJOIN_SECONDS:
            raise UnreadPartitions(self._coverage.reason or "", mend="restart this worker: the group then assigns its partitions again")
