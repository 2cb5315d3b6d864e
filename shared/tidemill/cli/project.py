"""`tidemill check`: load a project and show what it declares."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tidemill.durations import format_ms
from tidemill.project import Project, load_project
from tidemill.topics import topic_specs

console = Console()


def check(
    project: Annotated[str | None, typer.Argument(help="Folder, file or module of the project.")] = None,
    topics: Annotated[bool, typer.Option("--topics", help="Also list the topics it needs.")] = False,
) -> None:
    """Load a project, check its declarations, and show them."""
    loaded = load_project(project or os.environ.get("TIDEMILL_PROJECT") or ".")
    console.print(
        f"project [bold]{loaded.name}[/bold]: {len(loaded.events)} events, {len(loaded.views)} views, {len(loaded.models)} models"
    )
    console.print(_views(loaded))
    for model in loaded.models.values():
        console.print(
            f"model [bold]{model.name}[/bold]: {len(model.input_names)} inputs; a request gives {', '.join(model.request_fields)}"
        )
    if topics:
        table = Table("topic", "partitions")
        for name, spec in topic_specs(loaded).items():
            table.add_row(name, str(spec.partitions))
        console.print(table)


def _views(project: Project) -> Table:
    table = Table("view", "event", "entity", "features", "tiles")
    for view in project.views.values():
        tiles = sorted({feature.tile_ms for feature in view.served if feature.tile_ms})
        names = ", ".join(feature.name for feature in view.served)
        table.add_row(view.name, view.source.name, view.key.name, names, ", ".join(map(format_ms, tiles)) or "none")
    return table


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(check)
