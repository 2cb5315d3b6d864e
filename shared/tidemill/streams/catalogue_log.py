"""The topic of the catalogue: one way to change the definitions that are in force, one way to follow them."""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition

from tidemill.catalogue.definitions import NOTHING, Definitions, counted, newest_of, project_of
from tidemill.errors import CatalogueChanged, DeclarationError, TidemillError, TopicMismatch
from tidemill.kafka.client import RARE, started_producer
from tidemill.kafka.read_to_end import decoded_of, read_to_end, read_topic
from tidemill.kafka.reader import Reader
from tidemill.kafka.waves import send_wave
from tidemill.records import DECODE_ERRORS, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import catalogue_topic

WAIT_SECONDS, MOST = 1.0, 1_000
_decode = decoder(Definitions).decode


async def read_definitions(settings: KafkaSettings, project: str) -> Definitions:
    """The definitions in force now; `NOTHING` before the first. Raises KafkaUnavailable, TopicMismatch."""
    return newest_of(await read_topic(settings, catalogue_topic(project), _decode, _refuse))


async def read_history(settings: KafkaSettings, project: str) -> list[Definitions]:
    """All records that count, oldest first. Raises KafkaUnavailable, TopicMismatch."""
    return list(counted(await read_topic(settings, catalogue_topic(project), _decode, _refuse)))


async def append_definitions(settings: KafkaSettings, project: str, record: Definitions) -> None:
    """Puts a record in force whose number follows. The topic must exist.

    Raises CatalogueChanged when another record with this number came first, KafkaUnavailable, KafkaRefused. After an error of Kafka the
    record may be in force: read the catalogue. Raises TidemillError, and writes nothing, when nobody could read the record.
    """
    written = _readable(record, project)
    async with started_producer(settings) as made:
        await send_wave(made, {(catalogue_topic(project), 0): [(project.encode(), written, [])]})
    if await read_definitions(settings, project) != record:
        raise CatalogueChanged(
            f"the catalogue of {project} was changed by somebody else meanwhile", mend="look at the plan, and apply again"
        )


def _readable(record: Definitions, project: str) -> bytes:
    """The record as it is written. A record that cannot be read would stop everybody for good."""
    try:
        written = encode(record)
        project_of(_decode(written), project)
        same = _decode(written) == record
    except (*DECODE_ERRORS, DeclarationError, TypeError, ValueError) as error:
        raise _unreadable(project, str(error)) from error
    if not same:
        raise _unreadable(project, "it reads as something else")
    return written


def _unreadable(project: str, why: str) -> TidemillError:
    return TidemillError(
        f"the declarations of {project} cannot be written to the catalogue: {why}", mend="correct project.py; nothing was changed"
    )


class Catalogue:
    """Follows the definitions of a project, inside `async with`. `now`: the newest that were read.

    Every method raises KafkaUnavailable, TopicRecreated when the topic lost records that were read, TopicMismatch for a record that is none.
    """

    def __init__(self, settings: KafkaSettings, project: str) -> None:
        self._reader = Reader(settings, {TopicPartition(catalogue_topic(project), 0): 0}, **RARE)
        self.now = NOTHING

    async def __aenter__(self) -> Catalogue:
        await self._reader.__aenter__()
        async for fetched in read_to_end(self._reader, self._reader.first_ends):
            self._take(fetched)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.stop()

    async def changed(self) -> bool:
        """Whether a change came within a second; `now` has it then."""
        before = self.now
        self._take(await self._reader.fetch(WAIT_SECONDS, MOST))
        return self.now != before

    def _take(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        self.now = newest_of(decoded_of(fetched, _decode, _refuse), self.now)


def _refuse(_record: Any, error: Exception) -> None:
    raise TopicMismatch(f"a record of the catalogue cannot be read: {error}", mend="only tidemill apply and prune write it") from None
