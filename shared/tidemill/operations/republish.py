"""Publishes an event again that became a dead letter, corrected or as it came."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import httpx
import msgspec

from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, NotFound, TidemillError
from tidemill.records import DeadLetterRecord


class UnknownLetter(NotFound):
    """No dead letter has this place."""

    kind = "dead letter"


def place_of(letter: DeadLetterRecord) -> str:
    """Where the refused message stands: "topic/partition/offset"."""
    return "/".join(map(str, letter.source))


def event_of(project: Project, letter: DeadLetterRecord, mended: bytes | None) -> bytes:
    """The body of `POST /events` that publishes the event of a letter again. `mended`: the corrected data; None: as they came.

    An event without an id of its own gets the letter's place as id: if it is sent twice, it is folded once. Raises BadRequest with the
    mend.
    """
    place, names = place_of(letter), [event.name for event in project.events.values() if event.topic == letter.source[0]]
    if not names:
        origin = "" if letter.origin is None else f", event {'/'.join(map(str, letter.origin))},"
        raise BadRequest(
            f"{place} is a record of view {letter.view!r}", mend=f"correct the event it was made from{origin} and publish it again"
        )
    if letter.view is not None:
        raise BadRequest(
            f"{place} was refused by view {letter.view!r} alone; other views have it", mend="raise ahead= of the view, or leave it out"
        )
    data = base64.b64decode(letter.value) if mended is None else mended
    if mended is None and letter.size > len(data):
        raise BadRequest(f"the letter has only {len(data)} of the {letter.size} bytes of {place}", mend="give all of them with --value")
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(
            f"the data of {place} are not JSON: {error}", mend="write the corrected data to a file and name it with --value"
        ) from None
    if letter.event not in names and len(names) > 1:
        raise BadRequest(
            f"nothing says which of {', '.join(names)} {place} is", mend="publish the corrected event with POST /events, and its type"
        )
    return msgspec.json.encode({"type": letter.event if letter.event in names else names[0], "id": place, "data": msgspec.Raw(data)})


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
            f"ingestion answered {answer.status_code}: {told.get('detail') or told}", mend="correct the event and give it with --value"
        )
    result: Mapping[str, object] = found["results"][0]
    return result
