"""`tidemill dead-letters`: lists refused events, and sends events again."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.target import target
from tidemill.errors import BadRequest

if TYPE_CHECKING:
    from tidemill.records import DeadLetterRecord

_SHOWN_CHARACTERS = 200


def dead_letters(
    reason: Annotated[str | None, typer.Option(help="Only letters with this reason.")] = None,
    view: Annotated[str | None, typer.Option(help="Only letters of this view.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
    replay: Annotated[
        list[str] | None, typer.Option(metavar="TOPIC/PARTITION/OFFSET", help="Send this event again; may be repeated.")
    ] = None,
    value: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A file with the corrected data of the one event to send again.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object a line.")] = False,
) -> None:
    """List the dead letters, each once, with reason, data and position. Or send events again through ingestion, corrected or as they came.

    A letter keeps an event's data, not its headers, so time and id must be in the data.
    """
    from tidemill.streams.dead_letter_log import read_dead_letters

    at = target()
    letters = asyncio.run(read_dead_letters(at.kafka_settings, at.declared.name))
    if replay:
        _replay(letters, replay, value)
        return
    found = [letter for letter in letters if reason in (None, letter.reason) and view in (None, letter.view)]
    if json:
        for letter in found[-last:]:
            typer.echo(msgspec.json.encode(letter))
        return
    for letter in found[-last:]:
        console.print(_shown(letter))
    counts = Table("reason", "view", "letters")
    for of_reason, of_view in sorted({(letter.reason, letter.view or "") for letter in found}):
        counts.add_row(
            of_reason, of_view, f"{len([1 for letter in found if (letter.reason, letter.view or '') == (of_reason, of_view)]):,}"
        )
    console.print(counts if found else "no dead letters")


def _shown(letter: DeadLetterRecord) -> Text:
    from tidemill.operations.republish import place_of
    from tidemill.timestamps import rfc3339

    lines = f" {letter.reason}" + (f", view {letter.view}" if letter.view else "") + f", known {rfc3339(letter.known)}\n  {letter.detail}\n"
    data = base64.b64decode(letter.value)[:_SHOWN_CHARACTERS].decode(errors="replace")
    origin = "" if letter.origin is None else f"  made from {'/'.join(map(str, letter.origin))}\n"
    return Text.assemble((place_of(letter), "bold"), f"{lines}{origin}  key {letter.key or '-'}, {letter.size:,} bytes: {data}")


def _replay(letters: list[DeadLetterRecord], places: list[str], value: Path | None) -> None:
    from tidemill.operations.republish import UnknownLetter, event_of, place_of, publish_again

    if value is not None and len(places) > 1:
        raise BadRequest("one file cannot hold several events", mend="send them one by one")
    at, by_place = target(), {place_of(letter): letter for letter in reversed(letters)}
    for place in places:
        if place not in by_place:
            raise UnknownLetter(place, list(by_place)[:10])
    project = at.project()
    bodies = {place: event_of(project, by_place[place], None if value is None else value.read_bytes()) for place in places}
    for place, body in bodies.items():
        accepted = publish_again(at.url("ingestion"), body)
        console.print(f"{place} is sent again: {accepted['position']}, id {accepted['id']}", markup=False)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("dead-letters")(dead_letters)
