"""`tidemill lineage`: from a prediction to its events, and from an event to the predictions that saw it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.showing import moment
from tidemill.cli.target import need, offline_target
from tidemill.errors import UnknownEvent
from tidemill.proof.unknown import UnknownPrediction


def lineage(
    id: Annotated[str, typer.Argument(metavar="ID", help="A prediction's id; with --event, an event's.")],
    event: Annotated[str | None, typer.Option(metavar="EVENT", help="The event whose id it is: which predictions saw it?")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest events of each view to show.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object, all of it.")] = False,
) -> None:
    """Show which events a logged prediction saw, up to which record of each view; or which logged predictions saw an event."""
    need("deltalake", "lake")
    need("onnxruntime", "inference")
    from tidemill.proof.lineage import events_of, predictions_of
    from tidemill.proof.replay import logged

    project, store = offline_target()
    if event is not None:
        if event not in project.events:
            raise UnknownEvent(event, list(project.events))
        seeing = predictions_of(project, store, project.events[event], id)
        if json:
            typer.echo(msgspec.json.encode([one._asdict() for one in seeing]))
            return
        table = Table("prediction", "model", "time", "view", "counts for")
        for one in seeing:
            table.add_row(*map(Text, (one.id, f"{one.model}@{one.version}", moment(one.time_ms), one.view, ", ".join(one.features) or "-")))
        console.print(table)
        _say(f"{len(seeing):,} logged predictions saw {event} {id}")
        return
    record = next(iter(logged(store, [id])), None)
    if record is None:
        raise UnknownPrediction(id)
    found = events_of(project, store, record)
    if json:
        typer.echo(msgspec.json.encode([log._asdict() | {"events": [one._asdict() for one in log.events]} for log in found]))
        return
    _say(f"prediction {record.id} of {record.model}@{record.version} at {moment(record.time)}")
    for log in found:
        _say(
            f"{log.view} of {log.entity}: {len(log.events):,} events of {log.topic}, records of {log.log}[{log.partition}] below {log.below}"
        )
        table = Table("event", "time", "known", "position", "record", "counts for")
        for seen in log.events[-last:]:
            position = f"{log.topic}[{seen.partition}]@{seen.source}"
            cells = (
                seen.id or "-",
                moment(seen.time_ms),
                moment(seen.known_ms),
                position,
                str(seen.offset),
                ", ".join(seen.features) or "-",
            )
            table.add_row(*map(Text, cells))
        console.print(table)


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(lineage)
