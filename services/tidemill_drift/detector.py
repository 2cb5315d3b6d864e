"""Reads predictions and results, closes windows, says what it made of them, and sends alerts.

The position committed to Kafka is the first record of any window that is open or waits for more rows; the end of the last closed window is
stored with it. So after a restart these windows are read again whole, and closed windows are not judged twice. Judgements and alerts of an
earlier run are read from their topics and not repeated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, get_args

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from tidemill.declarations.project import Project
from tidemill.durations import parse_ms
from tidemill.kafka.client import GATHERING, KAFKA_SECONDS, RENEW_SECONDS, started_consumer, started_producer
from tidemill.kafka.topics import commits, ensure_topics
from tidemill.models.answers import chosen
from tidemill.records import DECODE_ERRORS, AlertKind, AlertRecord, JudgementRecord, PredictionRecord, ResultRecord, Watched, decoder
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.alerts import append_alert, read_alerts
from tidemill.streams.deployments import Deployments
from tidemill.streams.judgements import append_judgement, read_judgements
from tidemill.streams.topics import alerts_topic, deployments_topic, judgements_topic, predictions_topic, results_topic, topic_specs
from tidemill_drift.episodes import JudgedWindow
from tidemill_drift.judging import Judge, few_of_each, few_rows
from tidemill_drift.monitor import PredictionRow, ResultRow
from tidemill_drift.serving import Serving
from tidemill_drift.settings import WindowSettings
from tidemill_drift.told import ToldBefore
from tidemill_drift.windows import Windows

log = get_logger(__name__)

CHECK_SECONDS = 5.0
_POLL_MS = 500
All = dict[Watched, Windows[Any]]


class Detector:
    """Watches one project until cancelled. Shows on the board as "kafka"."""

    def __init__(self, project: Project, kafka: KafkaSettings, offline_root: str, windows: WindowSettings, board: HealthBoard) -> None:
        self._project, self._kafka, self._settings, self._board = project, kafka, windows, board
        predictions, results = predictions_topic(project.name), results_topic(project.name)
        self._watched: dict[str, tuple[Watched, ...]] = {predictions: ("inputs",), results: ("outcomes", "ranking")}
        self._writes = (alerts_topic(project.name), judgements_topic(project.name), deployments_topic(project.name))
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {predictions: decoder(PredictionRecord), results: decoder(ResultRecord)}
        self._group = f"{project.name}.drift"
        self.pulse = Pulse("detector")
        self._judge = Judge(offline_root, windows.budget)
        self._serving = Serving()
        self._texts: dict[frozenset[str], frozenset[str]] = {}  # each once
        for model in project.models:
            for kind in get_args(AlertKind):
                metrics.DRIFT_ALERTS.labels(model, kind)  # at 0, so that the first one is an increase
        specs = topic_specs(project)
        self._partitions = [TopicPartition(topic, p) for topic in self._watched for p in range(specs[topic].partitions)]

    async def run(self) -> None:
        """Follow the topics. A failure is shown on the board, and reading starts again from the committed position."""
        await supervise(self._watch, partial(self._board.down, "kafka"), [self.pulse])

    async def _watch(self) -> None:
        self.pulse.beat()
        await ensure_topics(self._kafka, {t: topic_specs(self._project)[t] for t in (*self._watched, *self._writes)})
        async with (
            started_consumer(self._kafka, group=self._group, auto_offset_reset="earliest", **GATHERING) as reader,
            started_producer(self._kafka) as writer,
            Deployments(self._kafka, self._project.name) as deployments,
        ):
            async for records in deployments.so_far():
                self.pulse.beat()
                self._serving.deploy(records)
            await self._follow(reader, writer, deployments)

    async def _follow(self, reader: AIOKafkaConsumer, writer: AIOKafkaProducer, deployments: Deployments) -> None:
        windows = await self._resume(reader)
        told = await self._told(windows)
        self._serving.changed = True  # an earlier run may have ended before it closed what is superseded
        self._board.up("kafka")
        checked = kept = time.monotonic()
        while True:
            self.pulse.beat()
            for tp, records in (await reader.getmany(timeout_ms=_POLL_MS)).items():
                self._add(windows, tp, records)
            self._serving.deploy(await deployments.next(wait_seconds=0))
            closed = await self._close(reader, writer, windows, told)
            if closed or self._serving.changed:
                self._serving.changed = False
                await self._send(writer, told, told.supersede(self._serving.gone))
            now = time.monotonic()
            if now - checked > CHECK_SECONDS:
                await _check(reader, self._partitions)
                checked = now
            if closed or now - kept > RENEW_SECONDS:
                await self._keep_position(reader, windows)
                kept = now

    async def _close(self, reader: AIOKafkaConsumer, writer: AIOKafkaProducer, windows: All, told: ToldBefore) -> bool:
        """Judges the windows that are complete, says so, and sends their alerts. False: there were none."""
        closed = False
        for topic, watched in self._watched.items():
            lagging = {tp.partition for tp in self._partitions if tp.topic == topic and await _lags(reader, tp)}
            for what in watched:
                for window in windows[what].complete(lagging):
                    closed = True
                    self.pulse.beat()
                    found = await asyncio.to_thread(self._judge.judge, what, window)
                    at = JudgedWindow(window.model, window.version, window.start, window.end, len(window.rows))
                    await self._send(writer, told, [alert for one in found.findings if (alert := told.episodes.observe(at, one))])
                    if found.judgement is not None:
                        await self._say(writer, told, found.judgement)
        return closed

    async def _resume(self, reader: AIOKafkaConsumer) -> All:
        """Sets the consumer to the committed position, and returns windows that begin there."""
        windows = self._windows()
        kept = await commits(self._kafka, self._group)
        reader.assign(self._partitions)
        for tp in self._partitions:
            position = kept.get(tp)
            if position is None:
                await reader.seek_to_beginning(tp)
                continue
            reader.seek(tp, position.offset)
            for what in self._watched[tp.topic]:
                windows[what].closed_ms = max(windows[what].closed_ms, int(position.metadata or 0))
        return windows

    def _windows(self) -> All:
        """Windows without rows. Results of one are complete when every outcome has come or been given up."""
        length, grace = parse_ms(self._settings.window), parse_ms(self._settings.grace)
        wait = max((model.outcome.wait.within_ms for model in self._project.models.values()), default=0)
        return {
            "inputs": Windows(length, grace, lacks=few_rows, gone=self._serving.gone),
            "outcomes": Windows(length, wait, lacks=few_rows, gone=self._serving.gone),
            "ranking": Windows(length, wait, lacks=few_of_each, gone=self._unranked),
        }

    def _unranked(self, version: tuple[str, str]) -> str:
        return self._serving.gone(version) or self._judge.unranked(version)

    async def _told(self, windows: All) -> ToldBefore:
        """What the closed windows left: open episodes, and rows that wait for more."""
        ends = {what: one.closed_ms for what, one in windows.items()}
        told = ToldBefore(ends, await read_alerts(self._kafka, self._project.name), await read_judgements(self._kafka, self._project.name))
        for what, since in told.since.items():
            windows[what].since = since
        return told

    def _add(self, windows: All, tp: TopicPartition, records: Iterable[Any]) -> None:
        for record in records:
            message = _decoded(self._decoders[tp.topic], record)
            if message is None:
                continue
            place = tp.partition, record.offset
            if isinstance(message, PredictionRecord):
                taken = self._add_prediction(windows["inputs"], message, place)
            else:
                added = [_add_result(windows[what], message, place) for what in self._watched[tp.topic]]
                taken = all(added)
            if not taken:
                metrics.DRIFT_IGNORED.labels(message.model).inc()

    def _add_prediction(self, windows: Windows[PredictionRow], prediction: PredictionRecord, place: tuple[int, int]) -> bool:
        """A request from the future is left out: it would close all windows before their time."""
        if prediction.time > prediction.served + windows.grace_ms:
            return False
        windows.tick(place[0], prediction.time)
        named = chosen(prediction.probabilities) if prediction.probabilities else None
        texts = frozenset(name for name, value in prediction.entities.items() if isinstance(value, str))
        row = PredictionRow(np.array(prediction.inputs, dtype=np.float32), prediction.output, named, self._texts.setdefault(texts, texts))
        return windows.add((prediction.model, prediction.version), prediction.time, prediction.id, row, place)

    async def _send(self, writer: AIOKafkaProducer, told: ToldBefore, alerts: list[AlertRecord]) -> None:
        for alert in alerts:
            if alert.id not in told.ids:
                await append_alert(writer, self._project.name, alert)
                told.sent(alert)
                metrics.DRIFT_ALERTS.labels(alert.model, alert.kind).inc()
                log.info("alert", id=alert.id, state=alert.state, kind=alert.kind, subject=alert.subject, text=alert.message)

    async def _say(self, writer: AIOKafkaProducer, told: ToldBefore, judgement: JudgementRecord) -> None:
        if told.said(judgement):
            await append_judgement(writer, self._project.name, judgement)

    async def _keep_position(self, reader: AIOKafkaConsumer, windows: All) -> None:
        offsets = {}
        for topic, watched in self._watched.items():
            positions = {tp.partition: await reader.position(tp) for tp in self._partitions if tp.topic == topic}
            closed_ms = min(windows[what].closed_ms for what in watched)
            for what in watched:
                positions = windows[what].resume_at(positions)
            for partition, offset in positions.items():
                offsets[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, str(closed_ms))
        async with asyncio.timeout(KAFKA_SECONDS):
            await reader.commit(offsets)


def _add_result(windows: Windows[ResultRow], result: ResultRecord, place: tuple[int, int]) -> bool:
    windows.tick(place[0], result.known)
    if result.outcome is None:
        return True  # never answered: nothing to compare
    row = ResultRow(result.output, result.outcome, result.probabilities)
    return windows.add((result.model, result.version), result.time, result.prediction, row, place)


async def _lags(reader: AIOKafkaConsumer, tp: TopicPartition) -> bool:
    highwater = reader.highwater(tp)
    return highwater is None or await reader.position(tp) < highwater


async def _check(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
    """Raises when Kafka does not answer: a consumer alone would wait in silence."""
    async with asyncio.timeout(KAFKA_SECONDS):
        await reader.end_offsets(partitions)


def _decoded(wanted: msgspec.json.Decoder[Any], record: Any) -> Any:
    """A message, or None when it cannot be decoded, which is logged."""
    try:
        return wanted.decode(record.value or b"")
    except DECODE_ERRORS as error:
        log.error("message cannot be read", topic=record.topic, partition=record.partition, offset=record.offset, reason=str(error))
        return None
