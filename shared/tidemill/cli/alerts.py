"""`tidemill alerts`: what is open, what was not judged; acknowledge and mute."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.soon import said_soon
from tidemill.cli.target import Target, target
from tidemill.cli.times import to_ms
from tidemill.clock import now_ms
from tidemill.declarations.checks import did_you_mean
from tidemill.declarations.project import load_project
from tidemill.errors import BadRequest, NotFound
from tidemill.local.addresses import Addresses
from tidemill.runtime.settings import KafkaSettings

if TYPE_CHECKING:
    from tidemill.records import JudgementRecord, NoteRecord
    from tidemill.streams.alert_board import AlertEpisode

commands = typer.Typer(invoke_without_command=True, help="Alerts: what is open; acknowledge, mute.")
FOLLOW_SECONDS = 2.0


class NoSuchAlert(NotFound):
    """No alert has this id."""

    kind = "alert"


@commands.callback()
def show(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as alerts arrive, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines: the newest alert of each, one JSON object a line.")] = False,
) -> None:
    """Show the alerts that are open, and what was not judged, and why."""
    if context.invoked_subcommand is not None:
        return
    at = target()
    found, notes, unjudged = asyncio.run(_read(at))
    shown = [one for one in found if every or one.is_open]
    for one in shown:
        typer.echo(msgspec.json.encode(one.newest)) if json else console.print(_told(one), soft_wrap=True)
    if not json:
        console.print(*([] if shown else ["no alerts are open" if not every else "no alerts"]))
        for note in notes:
            console.print(_muted(note), soft_wrap=True)
        for judgement in unjudged:
            console.print(_unjudged(judgement), soft_wrap=True)
    if follow:
        _follow(at, {one.newest.id for one in found}, json=json)


@commands.command()
def ack(
    alert: Annotated[str, typer.Argument(metavar="ID", help="An alert, as shown.")],
    reason: Annotated[str, typer.Option(help="For others.")] = "",
) -> None:
    """Say that an alert is known. It stays open."""
    from tidemill.records import NoteRecord

    at = target()
    found, *_ = asyncio.run(_read(at))
    episode = next((one for one in found if alert in (one.opened.id, one.newest.id)), None)
    if episode is None:
        raise NoSuchAlert(alert, [one.newest.id for one in found if one.is_open])
    _say(at, NoteRecord("ack", now_ms(), getpass.getuser(), alert, episode.opened.model, reason=reason))
    console.print(f"{alert} is acknowledged", markup=False, highlight=False)


@commands.command()
def mute(
    model: Annotated[str, typer.Option(help="Only alerts of this model, or view.")] = "",
    subject: Annotated[str, typer.Option(help="Only alerts about this subject: a feature, prediction, auc ...")] = "",
    until: Annotated[str | None, typer.Option(metavar="TIME", help="When it ends, as a date or time.")] = None,
    reason: Annotated[str, typer.Option(help="Why; needed without an end.")] = "",
) -> None:
    """Deliver no alerts of a model or about a subject, until a moment or for a reason. They are shown all the same."""
    from tidemill.records import NoteRecord

    if until is None and not reason:
        raise BadRequest("a mute without end or reason would be forgotten", mend="give --until TIME, or --reason TEXT")
    end_ms = None if until is None else to_ms(until)
    if end_ms is not None and end_ms <= now_ms():
        raise BadRequest(f"{until} is over", mend="give a later moment")
    at = target()
    if model and model not in (names := [*at.declared.models, *at.declared.views]):
        raise BadRequest(f"{model!r} is no model and no view", mend=did_you_mean(model, names) or f"name one of {', '.join(names)}")
    found, *_ = asyncio.run(_read(at))
    _say(at, NoteRecord("mute", now_ms(), getpass.getuser(), "", model, subject, end_ms, reason))
    console.print(f"muted: {_what(model, subject)}", markup=False, highlight=False)
    if subject and subject not in (told := {one.newest.subject for one in found}):
        hint = did_you_mean(subject, told)
        console.print(
            f"no alert has been about {subject!r} yet{f': {hint}' if hint else ''}", markup=False, highlight=False, soft_wrap=True
        )


@commands.command()
def unmute(
    model: Annotated[str, typer.Option(help="As it was muted.")] = "", subject: Annotated[str, typer.Option(help="As it was muted.")] = ""
) -> None:
    """End a mute."""
    from tidemill.records import NoteRecord

    at = target()
    _, notes, _ = asyncio.run(_read(at))
    if (model, subject) not in [(note.model, note.subject) for note in notes]:
        known = "; ".join(_what(note.model, note.subject) for note in notes) or "nothing"
        raise BadRequest(f"{_what(model, subject)} is not muted", mend=f"muted: {known}")
    _say(at, NoteRecord("unmute", now_ms(), getpass.getuser(), "", model, subject))
    console.print(f"not muted any more: {_what(model, subject)}", markup=False, highlight=False)


def _what(model: str, subject: str) -> str:
    return f"{subject or 'everything'} of {model or 'every model'}"


def _say(at: Target, note: NoteRecord) -> None:
    from tidemill.kafka.topics import ensure_topics
    from tidemill.streams.notes import append_note
    from tidemill.streams.topics import notes_topic, topic_specs

    async def say() -> None:
        topic = notes_topic(at.declared.name)
        await ensure_topics(at.kafka_settings, {topic: topic_specs(at.declared)[topic]})
        await append_note(at.kafka_settings, at.declared.name, note)

    asyncio.run(say())


async def _read(at: Target) -> tuple[list[AlertEpisode], list[NoteRecord], list[JudgementRecord]]:
    """The episodes, the mutes in force, and what was not judged."""
    from tidemill.streams.alert_board import mutes, not_judged
    from tidemill.streams.judgements import read_judgements

    kafka, name = at.kafka_settings, at.declared.name
    episodes, notes = await _episodes(kafka, name)
    return episodes, mutes(notes, now_ms()), not_judged(await read_judgements(kafka, name))


async def _episodes(kafka: KafkaSettings, project: str) -> tuple[list[AlertEpisode], list[NoteRecord]]:
    from tidemill.streams.alert_board import episodes_of
    from tidemill.streams.alerts import read_alerts
    from tidemill.streams.notes import read_notes

    notes = await read_notes(kafka, project)
    return episodes_of(await read_alerts(kafka, project), notes, now_ms()), notes


def alerts_line(at: Addresses) -> str | None:
    """What `tidemill status` says of open alerts; None where no drift detection runs."""
    if not ((spec := at.project) and at.kafka and "drift" in at.urls):
        return None
    return said_soon("alerts", lambda: _episodes(KafkaSettings(bootstrap_servers=at.kafka), load_project(spec).name), _open)


def _open(read: tuple[list[AlertEpisode], list[NoteRecord]]) -> str:
    models = Counter(one.newest.model or one.newest.view for one in read[0] if one.is_open)
    if not models:
        return "none are open"
    return f"{models.total()} open ({', '.join(f'{name} {count}' for name, count in models.most_common())}); `tidemill alerts` shows them"


def _follow(at: Target, told: set[str], *, json: bool) -> None:
    try:
        while True:
            time.sleep(FOLLOW_SECONDS)
            for one in asyncio.run(_read(at))[0]:
                if one.newest.id not in told:
                    typer.echo(msgspec.json.encode(one.newest)) if json else console.print(_told(one), soft_wrap=True)
                    told.add(one.newest.id)
    except KeyboardInterrupt:
        return


def _told(one: AlertEpisode) -> Text:
    from tidemill.timestamps import rfc3339

    newest = one.newest
    marks: list[str] = [newest.state]
    if one.acknowledged:
        marks.append(f"acknowledged by {one.acknowledged.by}{_because(one.acknowledged)}")
    if one.muted:
        marks.append(f"muted{_until(one.muted)}")
    where = f" {newest.version}" if newest.version else ""
    since = f"since {rfc3339(one.opened.start)}"
    if not one.is_open:  # one that is superseded was not judged again: its last window is not its end
        since += ", superseded" if newest.reason == "superseded" else f" to {rfc3339(newest.end)}"
    return Text.assemble((newest.id, "bold"), f" {', '.join(marks)}{where}, {since}\n  {newest.message}")


def _muted(note: NoteRecord) -> Text:
    return Text(f"muted: {_what(note.model, note.subject)}{_until(note)}, by {note.by}{_because(note)}")


def _until(note: NoteRecord) -> str:
    from tidemill.timestamps import rfc3339

    return "" if note.until is None else f" until {rfc3339(note.until)}"


def _because(note: NoteRecord) -> str:
    return f" ({note.reason})" if note.reason else ""


def _unjudged(one: JudgementRecord) -> Text:
    from tidemill.timestamps import rfc3339

    state = "waits" if one.state == "waiting" else "was not judged"
    return Text(f"{one.model} {one.version}: {one.what} {state}: {one.why} ({rfc3339(one.start)} to {rfc3339(one.end)})")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="alerts")
