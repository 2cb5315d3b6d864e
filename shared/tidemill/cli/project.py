"""`tidemill check`: load a project and show what it declares."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from tidemill.declarations import FeatureView
from tidemill.declarations.project import load_project
from tidemill.durations import format_ms
from tidemill.streams.topics import topic_specs

console = Console()


def check(
    project: Annotated[str | None, typer.Argument(help="Folder, file or module of the project.")] = None,
    topics: Annotated[bool, typer.Option("--topics", help="Also list the topics it needs.")] = False,
) -> None:
    """Load a project, check its declarations, and show them."""
    loaded = load_project(project or os.environ.get("TIDEMILL_PROJECT") or ".")
    counts = f"{len(loaded.events)} events, {len(loaded.views)} views, {len(loaded.models)} models"
    console.print(f"project [bold]{loaded.name}[/bold]: {counts}", highlight=False)
    for view in loaded.views.values():
        console.print(f"\nview [bold]{view.name}[/bold]: {view.source.name} by {view.key.name}; {_kept(view)}", highlight=False)
        console.print(Padding(", ".join(feature.name for feature in view.served), (0, 0, 0, 4)), highlight=False)
    for model in loaded.models.values():
        console.print(f"\nmodel [bold]{model.name}[/bold]: {len(model.input_names)} inputs; a request gives", highlight=False)
        console.print(Padding(", ".join(model.request_fields), (0, 0, 0, 4)), highlight=False)
    if topics:
        table = Table("topic", "partitions")
        for name, spec in topic_specs(loaded).items():
            table.add_row(name, str(spec.partitions))
        console.print(table)


def _kept(view: FeatureView) -> str:
    """How long its tiles are, and how long a value counts."""
    tiles = sorted({feature.tile_ms for feature in view.served if feature.tile_ms})
    kept = f"tiles of {', '.join(map(format_ms, tiles))}" if tiles else "no windows"
    return kept if view.ttl is None else f"{kept}; expires after {view.ttl}"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(check)
