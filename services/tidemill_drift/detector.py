"""Reading predictions and results, closing windows, telling alerts.

The position kept in Kafka is the first record of any open window, with the end of the last closed one beside it: after a restart the open
windows are read again whole, and closed ones are not judged twice. Alerts that an earlier run told are read from their topic and not repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from tidemill import metrics
from tidemill.durations import parse_ms
from tidemill.errors import ArtifactError, TidemillError
from tidemill.health import HealthBoard
from tidemill.kafka import admin, close_producer, consumer, producer
from tidemill.kafka_topics import ensure_topics
from tidemill.logs import get_logger
from tidemill.models import Manifest, stored_artifact
from tidemill.project import Project
from tidemill.records import AlertRecord, PredictionRecord, ResultRecord, decoder, encode
from tidemill.settings import KafkaSettings
from tidemill.topics import alerts_topic, predictions_topic, results_topic, topic_specs
from tidemill.worker import Pulse
from tidemill_drift.compare import Finding
from tidemill_drift.episodes import Episodes, Window
from tidemill_drift.monitor import compare_predictions, compare_results
from tidemill_drift.settings import WindowSettings
from tidemill_drift.windows import Key, Windows

log = get_logger(__name__)

RETRY_SECONDS = 1.0
_POLL_MS = 500


class Detector:
    """Watches one project until cancelled; reports on the board as "kafka"."""

    def __init__(self, project: Project, kafka: KafkaSettings, offline_root: str, windows: WindowSettings, board: HealthBoard) -> None:
        self._project, self._kafka, self._offline_root, self._settings, self._board = project, kafka, offline_root, windows, board
        self._topics = (predictions_topic(project.name), results_topic(project.name))
        self._alerts = alerts_topic(project.name)
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {
            self._topics[0]: decoder(PredictionRecord),
            self._topics[1]: decoder(ResultRecord),
        }
        self._group = f"{project.name}.drift"
        self.pulse = Pulse()
        self._manifests: dict[tuple[str, str], Manifest] = {}
        specs = topic_specs(project)
        self._partitions = [TopicPartition(topic, p) for topic in self._topics for p in range(specs[topic].partitions)]

    async def run(self) -> None:
        """Follow both topics; whatever fails is told and tried again from the kept position."""
        while True:
            reader, writer = consumer(self._kafka, group=self._group, auto_offset_reset="earliest"), producer(self._kafka)
            try:
                await ensure_topics(self._kafka, {t: topic_specs(self._project)[t] for t in (*self._topics, self._alerts)})
                await reader.start()
                await writer.start()
                await self._follow(reader, writer)
            except (KafkaError, TidemillError, TimeoutError) as error:
                self._board.down("kafka", str(error) or repr(error))
                self.pulse.beat()
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await reader.stop()
                await close_producer(writer)

    async def _follow(self, reader: AIOKafkaConsumer, writer: AIOKafkaProducer) -> None:
        episodes, told = await self._told()
        windows = await self._resume(reader)
        self._board.up("kafka")
        while True:
            self.pulse.beat()
            for tp, records in (await reader.getmany(timeout_ms=_POLL_MS)).items():
                self._add(windows[tp.topic], tp, records)
            closed = False
            for topic, kept in windows.items():
                behind = {tp.partition for tp in self._partitions if tp.topic == topic and await self._is_behind(reader, tp)}
                for key, records in kept.complete(behind):
                    closed = True
                    await self._tell(writer, await asyncio.to_thread(self._judge, key, records), episodes, told)
            if closed:
                await self._keep_position(reader, windows)

    async def _told(self) -> tuple[Episodes, set[str]]:
        """The episodes that earlier runs left open, and the ids of all their alerts."""
        episodes, told = Episodes(), set[str]()
        partition = TopicPartition(self._alerts, 0)
        reader = consumer(self._kafka)
        await reader.start()
        try:
            reader.assign([partition])
            await reader.seek_to_beginning(partition)
            end = (await reader.end_offsets([partition]))[partition]
            while await reader.position(partition) < end:
                for record in (await reader.getmany(timeout_ms=_POLL_MS)).get(partition, []):
                    alert = _decoded(decoder(AlertRecord), record)
                    if alert is not None:
                        episodes.restore(alert)
                        told.add(alert.id)
        finally:
            await reader.stop()
        return episodes, told

    async def _resume(self, reader: AIOKafkaConsumer) -> dict[str, Windows[Any]]:
        """Windows as of the kept position, and the consumer set to it."""
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

    def _wait_ms(self) -> int:
        """Results of a window are complete when every outcome has come or been given up."""
        return max((model.outcome.within_ms for model in self._project.models.values()), default=0)

    def _add(self, windows: Windows[Any], tp: TopicPartition, records: Iterable[Any]) -> None:
        for record in records:
            message = _decoded(self._decoders[tp.topic], record)
            if message is not None:
                now_ms = message.known if isinstance(message, ResultRecord) else message.time
                windows.add(message.model, message.version, message.time, now_ms, message, tp.partition, record.offset)

    @staticmethod
    async def _is_behind(reader: AIOKafkaConsumer, tp: TopicPartition) -> bool:
        highwater = reader.highwater(tp)
        return highwater is None or await reader.position(tp) < highwater

    def _judge(self, key: Key, records: Sequence[Any]) -> list[tuple[Window, Finding]]:
        """All comparisons of one window."""
        model, version, start = key
        window = Window(model, version, start, start + parse_ms(self._settings.window), len(records))
        metrics.DRIFT_WINDOWS.labels(model).inc()
        try:
            manifest = self._manifest(model, version)
        except ArtifactError as error:
            log.error("window not judged", model=model, version=version, reason=str(error))
            return []
        compare = compare_results if isinstance(records[0], ResultRecord) else compare_predictions
        return [(window, finding) for finding in compare(manifest, _distinct(records), self._settings.budget)]

    def _manifest(self, model: str, version: str) -> Manifest:
        if (model, version) not in self._manifests:
            self._manifests[model, version] = stored_artifact(self._offline_root, model, version).manifest
        return self._manifests[model, version]

    async def _tell(self, writer: AIOKafkaProducer, findings: list[tuple[Window, Finding]], episodes: Episodes, told: set[str]) -> None:
        for window, finding in findings:
            alert = episodes.observe(window, finding)
            if alert is not None and alert.id not in told:
                await writer.send_and_wait(self._alerts, encode(alert), key=alert.model.encode(), partition=0)
                told.add(alert.id)
                metrics.DRIFT_ALERTS.labels(alert.model, alert.kind).inc()
                log.info("alert", id=alert.id, state=alert.state, kind=alert.kind, subject=alert.subject, text=alert.message)

    async def _keep_position(self, reader: AIOKafkaConsumer, windows: dict[str, Windows[Any]]) -> None:
        offsets = {}
        for topic, kept in windows.items():
            positions = {tp.partition: await reader.position(tp) for tp in self._partitions if tp.topic == topic}
            for partition, offset in kept.resume_at(positions).items():
                offsets[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, str(kept.closed_ms))
        await reader.commit(offsets)


def _decoded(wanted: msgspec.json.Decoder[Any], record: Any) -> Any:
    """A message, or None when it cannot be decoded, which is logged."""
    try:
        return wanted.decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("message cannot be read", topic=record.topic, partition=record.partition, offset=record.offset, reason=str(error))
        return None


def _distinct(records: Sequence[Any]) -> list[Any]:
    """Each prediction once, though a client or a restart may have logged it again."""
    return list({record.prediction if isinstance(record, ResultRecord) else record.id: record for record in reversed(records)}.values())[
        ::-1
    ]
