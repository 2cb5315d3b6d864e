"""Reading the dead-letter topic, and publishing an event that was mended again."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import httpx
import msgspec

from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, NotFound, TidemillError
from tidemill.kafka.client import close_consumer, consumer
from tidemill.kafka.topics import offset_ranges
from tidemill.records import DeadLetterRecord, decoder
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import dead_letters_topic

_WAIT_MS = 1_000


class UnknownLetter(NotFound):
    """No dead letter has this place."""

    kind = "dead letter"


def place_of(letter: DeadLetterRecord) -> str:
    """Where the refused message stands: "topic/partition/offset"."""
    return "/".join(map(str, letter.source))


async def read_dead_letters(settings: KafkaSettings, project: str) -> list[DeadLetterRecord]:
    """The dead letters of a project, oldest first, each once however often it was written. Raises KafkaUnavailable."""
    topic, decode = dead_letters_topic(project), decoder(DeadLetterRecord).decode
    waiting = {tp: held for tp, held in (await offset_ranges(settings, topic)).items() if held.begin < held.end}
    letters: dict[tuple[object, ...], DeadLetterRecord] = {}
    if not waiting:
        return []
    reader = consumer(settings)
    try:
        await reader.start()
        reader.assign(list(waiting))
        for tp, held in waiting.items():
            reader.seek(tp, held.begin)
        while waiting:
            for tp, records in (await reader.getmany(timeout_ms=_WAIT_MS)).items():
                for letter in (decode(record.value) for record in records):
                    letters.setdefault((letter.source, letter.view), letter)
                if tp in waiting and records[-1].offset + 1 >= waiting[tp].end:
                    del waiting[tp]
    finally:
        await close_consumer(reader)
    return list(letters.values())


def event_of(project: Project, letter: DeadLetterRecord, mended: bytes | None) -> bytes:
    """The body of `POST /events` that publishes the event of a letter again. `mended`: its data, when they are not sent as they came.

    Its id, where the event has none of its own, is the letter's place: sent twice, it is folded once. Raises BadRequest with the mend.
    """
    place, names = place_of(letter), {event.topic: event.name for event in project.events.values()}
    if letter.source[0] not in names:
        origin = "" if letter.origin is None else f", event {'/'.join(map(str, letter.origin))},"
        raise BadRequest(
            f"{place} is a record of view {letter.view!r}", mend=f"publish the event it was made from{origin} with what is wrong corrected"
        )
    if letter.view is not None:
        raise BadRequest(
            f"{place} was refused by view {letter.view!r} alone; other views have it", mend="raise ahead= of the view, or leave it out"
        )
    data = base64.b64decode(letter.value) if mended is None else mended
    if mended is None and letter.size > len(data):
        raise BadRequest(f"of the {letter.size} bytes of {place} the letter has {len(data)}", mend="give the whole with --value")
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(
            f"the data of {place} are not JSON: {error}", mend="write them mended to a file and name it with --value"
        ) from None
    return msgspec.json.encode({"type": names[letter.source[0]], "id": place, "data": msgspec.Raw(data)})


def publish_again(url: str, body: bytes) -> Mapping[str, object]:
    """Posts an event to ingestion at `url` and returns its position and id. Raises TidemillError with ingestion's reason."""
    try:
        answer = httpx.post(f"{url}/events", content=body, timeout=30, trust_env=False)
    except httpx.TransportError as error:
        raise TidemillError(f"ingestion at {url} does not answer: {error}", mend="start it") from error
    found = msgspec.json.decode(answer.content)
    if answer.is_error:
        told = (found.get("results") or [found])[0]
        raise TidemillError(
            f"ingestion answered {answer.status_code}: {told.get('detail') or told}", mend="mend the event and give it with --value"
        )
    result: Mapping[str, object] = found["results"][0]
    return result
