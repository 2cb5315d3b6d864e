"""Delivers alerts of the topic to one sink, at least once each, in order; a sink that is away gets them when it is back.

The position on the topic is that of a consumer group for each sink, and moves once the sink took the message. While it does not, further alerts
join the message: a storm is one message.
"""

from __future__ import annotations

import asyncio
import time

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from tidemill.clock import now_ms
from tidemill.declarations.project import Project
from tidemill.kafka.client import GATHERING, KAFKA_SECONDS, RENEW_SECONDS, started_consumer
from tidemill.kafka.read_to_end import decoded_of, logged
from tidemill.kafka.topics import committed, ensure_topics
from tidemill.records import AlertRecord, decoder
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.streams.alert_board import muted_by
from tidemill.streams.notes import read_notes
from tidemill.streams.topics import alerts_topic, topic_specs
from tidemill_drift.sinks import NotDelivered, Notice, Sink

log = get_logger(__name__)

GATHER_MS, IDLE_MS, MOST = 500, 1_000, 10_000
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
_decode = decoder(AlertRecord).decode


class AlertDelivery:
    """Delivers to one sink until cancelled. Kafka or the sink may be away: nothing else waits for it."""

    def __init__(self, project: Project, kafka: KafkaSettings, sink: Sink) -> None:
        self._name, self._kafka, self._sink = project.name, kafka, sink
        self._at = TopicPartition(alerts_topic(project.name), 0)
        self._spec = topic_specs(project)[self._at.topic]
        self._group = f"{project.name}.alerts.{sink.name}"
        metrics.ALERTS_DELIVERED.labels(sink.name)

    async def run(self) -> None:
        """Deliver for ever. A failure of Kafka is logged, and delivery goes on from the kept position."""
        await supervise(self._deliver, lambda error: log.warning("alerts are not delivered", sink=self._sink.name, reason=str(error)))

    async def _deliver(self) -> None:
        await ensure_topics(self._kafka, {self._at.topic: self._spec})
        async with started_consumer(self._kafka, group=self._group, auto_offset_reset="earliest", **GATHERING) as reader:
            await self._resume(reader)
            kept = time.monotonic()
            while True:
                if records := await self._fetch(reader, IDLE_MS):
                    await self._pass_on(reader, records + await self._fetch(reader, GATHER_MS))
                if time.monotonic() - kept > RENEW_SECONDS:
                    await self._keep(reader)
                    kept = time.monotonic()

    async def _resume(self, reader: AIOKafkaConsumer) -> None:
        """Sets the consumer to the kept position; a sink that is new begins with the next alert."""
        kept = await committed(self._kafka, self._group)
        reader.assign([self._at])
        if self._at in kept:
            reader.seek(self._at, kept[self._at])
            return
        await reader.seek_to_end(self._at)
        await self._keep(reader)

    async def _fetch(self, reader: AIOKafkaConsumer, wait_ms: int) -> list[AlertRecord]:
        fetched = await reader.getmany(timeout_ms=wait_ms, max_records=MOST)
        return list(decoded_of(fetched, _decode, logged))

    async def _pass_on(self, reader: AIOKafkaConsumer, alerts: list[AlertRecord]) -> None:
        """Delivers alerts, with those that come meanwhile, and keeps the position."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            wanted = await self._wanted(alerts)
            try:
                if wanted:
                    await self._sink.send(Notice.of(self._name, wanted))
                break
            except NotDelivered as error:
                metrics.ALERTS_REFUSED.labels(self._sink.name).inc()
                log.warning("alerts wait", sink=self._sink.name, alerts=len(wanted), reason=error.message, seconds=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                if len(alerts) < MOST:
                    alerts = alerts + await self._fetch(reader, 0)
        metrics.ALERTS_DELIVERED.labels(self._sink.name).inc(len(wanted))
        await self._keep(reader)

    async def _wanted(self, alerts: list[AlertRecord]) -> list[AlertRecord]:
        notes, now = await read_notes(self._kafka, self._name), now_ms()
        return [alert for alert in alerts if self._sink.wants(alert) and muted_by(alert, notes, now) is None]

    async def _keep(self, reader: AIOKafkaConsumer) -> None:
        async with asyncio.timeout(KAFKA_SECONDS):
            await reader.commit({self._at: OffsetAndMetadata(await reader.position(self._at), "")})
