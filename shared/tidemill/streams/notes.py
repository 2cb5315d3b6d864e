"""The topic of notes: what operators say about alerts. One way to write one, one way to read all."""

from __future__ import annotations

from tidemill.kafka.client import started_producer
from tidemill.kafka.read_to_end import logged, read_topic
from tidemill.kafka.waves import send_wave
from tidemill.records import NoteRecord, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import notes_topic

_decode = decoder(NoteRecord).decode


async def read_notes(settings: KafkaSettings, project: str) -> list[NoteRecord]:
    """All notes of a project so far, oldest first. What cannot be read is logged and left out. Raises KafkaUnavailable."""
    return await read_topic(settings, notes_topic(project), _decode, logged)


async def append_note(settings: KafkaSettings, project: str, note: NoteRecord) -> None:
    """Writes a note and returns once it is acknowledged. Raises KafkaUnavailable, KafkaRefused."""
    async with started_producer(settings) as made:
        await send_wave(made, {(notes_topic(project), 0): [(note.model.encode(), encode(note), [])]})
