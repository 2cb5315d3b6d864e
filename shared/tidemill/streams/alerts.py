"""The alerts topic: one way to write an alert, one way to read all. A service that writes alerts reads the earlier ones first."""

from __future__ import annotations

import asyncio
import re

import msgspec
from aiokafka import AIOKafkaProducer

from tidemill.kafka.client import KAFKA_SECONDS
from tidemill.kafka.read_to_end import logged, read_topic
from tidemill.kafka.waves import send_wave
from tidemill.records import AlertRecord, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import alerts_topic

_decode = decoder(AlertRecord).decode


async def read_alerts(settings: KafkaSettings, project: str) -> list[AlertRecord]:
    """All alerts of a project so far, oldest first, each with its source. Others are logged and left out. Raises KafkaUnavailable."""
    return [with_source(alert) for alert in await read_topic(settings, alerts_topic(project), _decode, logged)]


async def append_alert(producer: AIOKafkaProducer, project: str, alert: AlertRecord) -> None:
    """Writes an alert and returns once it is acknowledged. After KafkaUnavailable, KafkaRefused or TimeoutError close the producer."""
    async with asyncio.timeout(KAFKA_SECONDS):
        await send_wave(producer, {(alerts_topic(project), 0): [((alert.model or alert.view).encode(), encode(alert), [])]})


def with_source(alert: AlertRecord) -> AlertRecord:
    """Old alerts have no source: `test` tells it, and the text in `subject` tells the partition."""
    if alert.source is not None:
        return alert
    if alert.test != "audit":
        return msgspec.structs.replace(alert, source="drift")
    told = re.fullmatch(r"partition (\d+)", alert.subject)
    return msgspec.structs.replace(alert, source="audit", partition=None if told is None else int(told[1]))
