"""`tidemill erase`: deletes the archived events of a person, or of anything else that a field names."""

from __future__ import annotations

from typing import Annotated

import typer

from tidemill.cli.console import console
from tidemill.cli.target import need, target
from tidemill.errors import UnknownEvent


def erase(
    event: Annotated[str, typer.Argument(help="The event.")],
    which: Annotated[str, typer.Argument(metavar="FIELD=VALUE", help="The events to erase: those in which this field has this value.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; without it they are only counted.")] = False,
) -> None:
    """Delete archived events, and the files that hold them. It says where else the value may lie: those places it does not touch."""
    need("deltalake", "lake")
    from tidemill.archive.erasure import Wanted, matching, other_places
    from tidemill.archive.erasure import erase as delete
    from tidemill.timestamps import rfc3339

    at = target()
    project = at.project()
    if event not in project.events:
        raise UnknownEvent(event, list(project.events))
    wanted = Wanted.parse(project.events[event], which)
    found = matching(at.store, wanted)
    span = f", known from {rfc3339(found['_known'][0].as_py())} to {rfc3339(found['_known'][-1].as_py())}" if len(found) else ""
    console.print(f"{len(found):,} archived events of {event} have {wanted.field}={wanted.value}{span}", markup=False, highlight=False)
    if yes:
        console.print(f"{delete(at.store, wanted):,} deleted from the archive, with the files that held them")
    elif len(found):
        console.print("nothing is deleted yet: add --yes")
    console.print("not touched, and may hold the same value:")
    for place in other_places(project, wanted):
        console.print(f"  {place}", markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(erase)
