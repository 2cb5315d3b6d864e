"""The topic of retrainings: one way to write a step, one way to read all."""

from __future__ import annotations

from tidemill.kafka.client import started_producer
from tidemill.kafka.read_to_end import logged, read_topic
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.records import decoder, encode
from tidemill.retrainings import RetrainingRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import KEPT, retraining_topic

_decode = decoder(RetrainingRecord).decode


async def read_retraining(settings: KafkaSettings, project: str) -> list[RetrainingRecord]:
    """All steps of a project's retrainings, oldest first; none without the topic. A record that cannot be read is logged and left out. Raises KafkaUnavailable."""
    return await read_topic(settings, retraining_topic(project), _decode, logged)


async def append_retraining(settings: KafkaSettings, project: str, record: RetrainingRecord) -> None:
    """Writes a step, and returns once it is acknowledged. The topic is made if it is not there. Raises KafkaUnavailable, KafkaRefused, TopicMismatch."""
    topic = retraining_topic(project)
    await ensure_topics(settings, {topic: KEPT})
    async with started_producer(settings) as made:
        await send_wave(made, {(topic, 0): [(record.model.encode(), encode(record), [])]})
