"""The topic of judgements: what drift detection made of each window. One way to write one, one way to read all."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer

from tidemill.kafka.client import KAFKA_SECONDS
from tidemill.kafka.read_to_end import logged, read_topic
from tidemill.kafka.waves import send_wave
from tidemill.records import JudgementRecord, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import judgements_topic

_decode = decoder(JudgementRecord).decode


async def read_judgements(settings: KafkaSettings, project: str) -> list[JudgementRecord]:
    """All judgements of a project so far, oldest first. What cannot be read is logged and left out. Raises KafkaUnavailable."""
    return await read_topic(settings, judgements_topic(project), _decode, logged)


async def append_judgement(producer: AIOKafkaProducer, project: str, judgement: JudgementRecord) -> None:
    """Writes a judgement and returns once it is acknowledged. After KafkaUnavailable, KafkaRefused or TimeoutError close the producer."""
    async with asyncio.timeout(KAFKA_SECONDS):
        await send_wave(producer, {(judgements_topic(project), 0): [(judgement.model.encode(), encode(judgement), [])]})
