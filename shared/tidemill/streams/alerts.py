"""The alerts topic, read whole: who tells alerts looks first at what was told before."""

from __future__ import annotations

import contextlib

from aiokafka import TopicPartition

from tidemill.kafka.client import close_consumer, consumer
from tidemill.records import DECODE_ERRORS, AlertRecord, decoder
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import alerts_topic

_POLL_MS = 500


async def read_alerts(settings: KafkaSettings, project: str) -> list[AlertRecord]:
    """All alerts of a project so far, oldest first; a record that is no alert is left out. Raises KafkaError."""
    target, reader, decode = TopicPartition(alerts_topic(project), 0), consumer(settings), decoder(AlertRecord).decode
    alerts: list[AlertRecord] = []
    await reader.start()
    try:
        reader.assign([target])
        await reader.seek_to_beginning(target)
        end = (await reader.end_offsets([target]))[target]
        while await reader.position(target) < end:
            for record in (await reader.getmany(timeout_ms=_POLL_MS)).get(target, []):
                with contextlib.suppress(*DECODE_ERRORS, TypeError):
                    alerts.append(decode(record.value))
    finally:
        await close_consumer(reader)
    return alerts
