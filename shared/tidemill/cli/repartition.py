"""`tidemill repartition`: copies a view's records into the log of another partition count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import console
from tidemill.cli.target import need, servers
from tidemill.errors import TidemillError, UnknownView

if TYPE_CHECKING:
    from tidemill.operations.repartition.job import Phase, Repartitioned

_PHASES = {"read": "reading the old log", "copy": "copying", "check": "folding both, comparing"}


def repartition(view: Annotated[str, typer.Argument(help="The view whose partitions= was changed.")]) -> None:
    """Copy a view's records into the log that its new partition count needs, and compare every value that the two logs give.

    For a project without a catalogue: with one, `tidemill apply` does it. Ingestion must be stopped. If no servers run here and none are named, it starts those of the local stack meanwhile. It can be killed and
    run again.
    """
    need("deltalake", "lake")
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from tidemill.operations.repartition.job import Repartition

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("records"), TimeRemainingColumn()
    with servers() as at, Bars(*columns, console=console) as bars:
        project = at.declared
        if view not in project.views:
            raise UnknownView(view, list(project.views))
        if at.project().catalogue:
            raise TidemillError(f"another partition count is another version of view {view!r}", mend="run: tidemill apply")
        tasks = {phase: bars.add_task(text, total=None) for phase, text in _PHASES.items()}

        def progress(phase: Phase, done: int, total: int) -> None:
            bars.update(tasks[phase], completed=done, total=total)

        job = Repartition(project, project.views[view], at.store, at.kafka_settings, progress)
        done = asyncio.run(job.run())
    console.print(
        f"nothing to copy: view {view} has its records in {project.views[view].log} already, or none" if done is None else _told(done),
        highlight=False,
    )


def _told(done: Repartitioned) -> str:
    mark = done.mark
    left_out = (
        f"; left out: {mark.undecodable:,} undecodable, {mark.sent_twice:,} sent twice" if mark.undecodable or mark.sent_twice else ""
    )
    moved = f"; {mark.moved:,} have a source of their own" if mark.moved else ""
    return (
        f"{mark.records:,} records copied from {mark.source} to {mark.log}{left_out}{moved}\n"
        f"{done.entities:,} entities compared, all equal; {mark.log} is in use now: start ingestion and the other services"
    )


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(repartition)
