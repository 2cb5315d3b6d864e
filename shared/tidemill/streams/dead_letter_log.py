"""The dead-letter topic: reading all letters."""

from __future__ import annotations

from tidemill.kafka.read_to_end import logged, read_topic
from tidemill.records import DeadLetterRecord, decoder
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import dead_letters_topic

_decode = decoder(DeadLetterRecord).decode


async def read_dead_letters(settings: KafkaSettings, project: str) -> list[DeadLetterRecord]:
    """The dead letters of a project, oldest first, each once even if it was written several times. Raises KafkaUnavailable.

    A record that is no letter is logged and left out.
    """
    letters: dict[tuple[object, ...], DeadLetterRecord] = {}
    for letter in await read_topic(settings, dead_letters_topic(project), _decode, logged):
        letters.setdefault((letter.source, letter.view), letter)
    return list(letters.values())
