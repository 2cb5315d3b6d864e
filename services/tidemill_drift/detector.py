"""Reads predictions and results, closes windows and sends alerts.

The position committed to Kafka is the first record of any open window; the end of the last closed window is stored with it. So after a
restart the open windows are read again whole, and closed windows are not judged twice. Alerts of an earlier run are read from their topic
and not repeated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, get_args

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from tidemill.declarations.project import Project
from tidemill.durations import parse_ms
from tidemill.errors import ArtifactError
from tidemill.kafka.admin import admin
from tidemill.kafka.client import GATHERING, KAFKA_SECONDS, started_consumer, started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.models.answers import chosen
from tidemill.models.artifact import Manifest, stored_artifact
from tidemill.records import DECODE_ERRORS, AlertKind, PredictionRecord, ResultRecord, decoder
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.alerts import append_alert, read_alerts
from tidemill.streams.topics import alerts_topic, predictions_topic, results_topic, topic_specs
from tidemill_drift.compare import Finding
from tidemill_drift.episodes import Episodes, JudgedWindow
from tidemill_drift.monitor import LEAST_ROWS, PredictionRow, ResultRow, compare_predictions, compare_results
from tidemill_drift.settings import WindowSettings
from tidemill_drift.windows import Key, Windows

log = get_logger(__name__)

CHECK_SECONDS = 5.0
KEEP_SECONDS = 3600.0  # Kafka forgets positions that are not renewed for a week
_POLL_MS = 500


class Detector:
    """Watches one project until cancelled. Shows on the board as "kafka"."""

    def __init__(self, project: Project, kafka: KafkaSettings, offline_root: str, windows: WindowSettings, board: HealthBoard) -> None:
        self._project, self._kafka, self._offline_root, self._settings, self._board = project, kafka, offline_root, windows, board
        self._topics = (predictions_topic(project.name), results_topic(project.name))
        self._alerts = alerts_topic(project.name)
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {
            self._topics[0]: decoder(PredictionRecord),
            self._topics[1]: decoder(ResultRecord),
        }
        self._group = f"{project.name}.drift"
        self.pulse = Pulse("detector")
        self._manifests: dict[tuple[str, str], Manifest] = {}
        for model in project.models:
            for kind in get_args(AlertKind):
                metrics.DRIFT_ALERTS.labels(model, kind)  # at 0, so that the first one is an increase
        specs = topic_specs(project)
        self._partitions = [TopicPartition(topic, p) for topic in self._topics for p in range(specs[topic].partitions)]

    async def run(self) -> None:
        """Follow both topics. A failure is shown on the board, and reading starts again from the committed position."""
        await supervise(self._watch, partial(self._board.down, "kafka"), [self.pulse])

    async def _watch(self) -> None:
        self.pulse.beat()
        await ensure_topics(self._kafka, {t: topic_specs(self._project)[t] for t in (*self._topics, self._alerts)})
        async with (
            started_consumer(self._kafka, group=self._group, auto_offset_reset="earliest", **GATHERING) as reader,
            started_producer(self._kafka) as writer,
        ):
            await self._follow(reader, writer)

    async def _follow(self, reader: AIOKafkaConsumer, writer: AIOKafkaProducer) -> None:
        windows = await self._resume(reader)
        episodes, told = await self._told(windows)
        self._board.up("kafka")
        checked = kept = time.monotonic()
        while True:
            self.pulse.beat()
            for tp, records in (await reader.getmany(timeout_ms=_POLL_MS)).items():
                self._add(windows[tp.topic], tp, records)
            closed = await self._close(reader, writer, windows, episodes, told)
            now = time.monotonic()
            if now - checked > CHECK_SECONDS:
                await _check(reader, self._partitions)
                checked = now
            if closed or now - kept > KEEP_SECONDS:
                await self._keep_position(reader, windows)
                kept = now

    async def _close(
        self, reader: AIOKafkaConsumer, writer: AIOKafkaProducer, windows: dict[str, Windows[Any]], episodes: Episodes, told: set[str]
    ) -> bool:
        """Judges the windows that are complete and sends their alerts. False: there were none."""
        closed = False
        for topic, open_windows in windows.items():
            lagging = {tp.partition for tp in self._partitions if tp.topic == topic and await _lags(reader, tp)}
            for key, rows in open_windows.complete(lagging):
                closed = True
                self.pulse.beat()
                findings = await asyncio.to_thread(self._judge, topic, key, rows)
                await self._tell(writer, findings, episodes, told)
        return closed

    async def _resume(self, reader: AIOKafkaConsumer) -> dict[str, Windows[Any]]:
        """Sets the consumer to the committed position, and returns windows that begin there."""
        length, grace = parse_ms(self._settings.window), parse_ms(self._settings.grace)
        windows: dict[str, Windows[Any]] = {self._topics[0]: Windows(length, grace), self._topics[1]: Windows(length, self._wait_ms())}
        async with admin(self._kafka) as client:
            kept: dict[TopicPartition, Any] = await client.list_consumer_group_offsets(self._group, partitions=self._partitions)
        reader.assign(self._partitions)
        for tp in self._partitions:
            position = kept.get(tp)
            if position is None or position.offset < 0:
                await reader.seek_to_beginning(tp)
                continue
            reader.seek(tp, position.offset)
            windows[tp.topic].closed_ms = max(windows[tp.topic].closed_ms, int(position.metadata or 0))
        return windows

    async def _told(self, windows: dict[str, Windows[Any]]) -> tuple[Episodes, set[str]]:
        """The episodes that the closed windows left open, and the ids of all alerts, including those of windows that will be judged
        again."""
        episodes, told = Episodes(), set[str]()
        for alert in await read_alerts(self._kafka, self._project.name):
            if alert.source != "drift":
                continue
            told.add(alert.id)
            if alert.end <= windows[self._topics[alert.kind == "performance"]].closed_ms:
                episodes.restore(alert)
        return episodes, told

    def _wait_ms(self) -> int:
        """Results of a window are complete when every outcome has come or been given up."""
        return max((model.outcome.wait.within_ms for model in self._project.models.values()), default=0)

    def _add(self, windows: Windows[Any], tp: TopicPartition, records: Iterable[Any]) -> None:
        for record in records:
            message = _decoded(self._decoders[tp.topic], record)
            if message is None:
                continue
            place = tp.partition, record.offset
            taken = self._add_prediction(windows, message, place) if tp.topic == self._topics[0] else _add_result(windows, message, place)
            if not taken:
                metrics.DRIFT_IGNORED.labels(message.model).inc()

    def _add_prediction(self, windows: Windows[PredictionRow], prediction: PredictionRecord, place: tuple[int, int]) -> bool:
        """A request from the future is left out: it would close all windows before their time."""
        if prediction.time > prediction.served + windows.grace_ms:
            return False
        windows.tick(place[0], prediction.time)
        named = chosen(prediction.probabilities) if prediction.probabilities else None
        row = PredictionRow(np.array(prediction.inputs, dtype=np.float32), prediction.output, named)
        return windows.add((prediction.model, prediction.version), prediction.time, prediction.id, row, place)

    def _judge(self, topic: str, key: Key, rows: Sequence[Any]) -> list[tuple[JudgedWindow, Finding]]:
        """All comparisons of one window. A window that cannot be judged is logged and skipped: judging it again would fail again."""
        model, version, start = key
        window = JudgedWindow(model, version, start, start + parse_ms(self._settings.window), len(rows))
        metrics.DRIFT_WINDOWS.labels(model).inc()
        compare: Any = compare_predictions if topic == self._topics[0] else compare_results
        if len(rows) < LEAST_ROWS:
            few = f"fewer than {LEAST_ROWS} rows"
            log.info("window not judged", model=model, version=version, topic=topic, start=start, rows=len(rows), reason=few)
            return []
        try:
            return [(window, finding) for finding in compare(self._manifest(model, version), rows, self._settings.budget)]
        except ArtifactError as error:
            log.error("window not judged", model=model, version=version, start=start, reason=error.message, mend=error.mend)
        except Exception:
            log.exception("window not judged", model=model, version=version, start=start, rows=len(rows))
        return []

    def _manifest(self, model: str, version: str) -> Manifest:
        if (model, version) not in self._manifests:
            self._manifests[model, version] = stored_artifact(self._offline_root, model, version).manifest
        return self._manifests[model, version]

    async def _tell(
        self, writer: AIOKafkaProducer, findings: list[tuple[JudgedWindow, Finding]], episodes: Episodes, told: set[str]
    ) -> None:
        for window, finding in findings:
            alert = episodes.observe(window, finding)
            if alert is not None and alert.id not in told:
                await append_alert(writer, self._project.name, alert)
                told.add(alert.id)
                metrics.DRIFT_ALERTS.labels(alert.model, alert.kind).inc()
                log.info("alert", id=alert.id, state=alert.state, kind=alert.kind, subject=alert.subject, text=alert.message)

    async def _keep_position(self, reader: AIOKafkaConsumer, windows: dict[str, Windows[Any]]) -> None:
        offsets = {}
        for topic, kept in windows.items():
            positions = {tp.partition: await reader.position(tp) for tp in self._partitions if tp.topic == topic}
            for partition, offset in kept.resume_at(positions).items():
                offsets[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, str(kept.closed_ms))
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
