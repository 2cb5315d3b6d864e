"""The topic of marks, `<project>.logs`: which logs of views repartition fills and has filled. One way to write, one way to read."""

from __future__ import annotations

from typing import Any

from tidemill.errors import TopicMismatch
from tidemill.kafka.client import started_producer
from tidemill.kafka.read_to_end import read_topic
from tidemill.kafka.waves import send_wave
from tidemill.records import LogRecord, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import logs_topic

_decode = decoder(LogRecord).decode


async def read_marks(settings: KafkaSettings, project: str) -> list[LogRecord]:
    """All marks in order. Raises KafkaUnavailable, and TopicMismatch for any other record: nobody may guess which log is in use."""
    return await read_topic(settings, logs_topic(project), _decode, _refuse)


async def append_mark(settings: KafkaSettings, project: str, mark: LogRecord) -> None:
    """Writes a mark and returns once it is acknowledged. Raises KafkaUnavailable, KafkaRefused."""
    async with started_producer(settings) as made:
        await send_wave(made, {(logs_topic(project), 0): [(mark.view.encode(), encode(mark), [])]})


def _refuse(_record: Any, error: Exception) -> None:
    raise TopicMismatch(f"a record of the topic of logs cannot be read: {error}", mend="only tidemill repartition writes it") from None
