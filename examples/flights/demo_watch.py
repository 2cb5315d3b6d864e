"""Watching results, alerts and retrainings arrive on their topics, as an operator's tool would."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Self

import numpy as np
from aiokafka import AIOKafkaConsumer

from tidemill.declarations.project import Project
from tidemill.kafka.client import GATHERING, consumer
from tidemill.records import AlertRecord, ResultRecord, decoder
from tidemill.retrainings import RetrainingRecord, RetrainingStep
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import alerts_topic, results_topic, retraining_topic

_BINS = 10_000
_QUIET_SECONDS = 3.0
_ASIDE: tuple[RetrainingStep, ...] = ("asked", "skipped", "waiting")
_TRAINS: tuple[RetrainingStep, ...] = ("begun", "trained", "rehearsed")


class Watcher:
    """Counts results, keeps a running AUC (by 10,000 bins of the probability), the alerts, and the steps of retrainings."""

    def __init__(self, project: Project, bootstrap_servers: str) -> None:
        self._topics = (results_topic(project.name), alerts_topic(project.name), retraining_topic(project.name))
        self._settings = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self._bins = np.zeros((2, _BINS), dtype=np.int64)
        self._changed = time.monotonic()
        self.alerts: list[AlertRecord] = []
        self.steps: list[RetrainingRecord] = []
        self.results = 0

    async def __aenter__(self) -> Self:
        self._consumer: AIOKafkaConsumer = consumer(self._settings, *self._topics, auto_offset_reset="earliest", **GATHERING)
        await self._consumer.start()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._consumer.stop()

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve so far: P(score of a late flight > score of one on time), ties count half."""
        negatives, positives = self._bins
        if not negatives.any() or not positives.any():
            return None
        below = np.cumsum(negatives) - negatives / 2
        return float((positives * below).sum() / (positives.sum() * negatives.sum()))

    @property
    def trains(self) -> bool:
        """Whether a version is trained, or rehearsed, now; from then on it is asked beside the champion."""
        return bool(self.steps) and self.steps[-1].step in _TRAINS

    async def trained(self) -> None:
        """Waits while a version is trained: a replay that went on meanwhile would be weeks ahead of it."""
        while self.trains:
            self._task.done() and self._task.result()
            await asyncio.sleep(0.05)

    async def settled(self) -> None:
        """Waits until nothing has come for three seconds."""
        self._changed = time.monotonic()
        while time.monotonic() - self._changed < _QUIET_SECONDS:
            self._task.done() and self._task.result()
            await asyncio.sleep(0.1)

    async def _watch(self) -> None:
        results, alerts, steps = decoder(ResultRecord), decoder(AlertRecord), decoder(RetrainingRecord)
        while True:
            for tp, records in (await self._consumer.getmany(timeout_ms=500)).items():
                self._changed = time.monotonic()
                for record in records:
                    if tp.topic == self._topics[1]:
                        self.alerts.append(alerts.decode(record.value))
                    elif tp.topic == self._topics[2]:
                        self._stepped(steps.decode(record.value))
                    else:
                        self._count(results.decode(record.value))

    def _stepped(self, step: RetrainingRecord) -> None:
        if step.step not in _ASIDE:
            self.steps.append(step)

    def _count(self, result: ResultRecord) -> None:
        if result.outcome is not None:
            self.results += 1
            self._bins[int(result.outcome), min(int(result.output * _BINS), _BINS - 1)] += 1
