"""`tidemill check`: load a project and show what it declares."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.declarations import FeatureView, Model
from tidemill.declarations.project import load_project
from tidemill.durations import format_ms
from tidemill.streams.topics import topic_specs


def check(
    project: Annotated[str | None, typer.Argument(help="Folder, file or module of the project.")] = None,
    topics: Annotated[bool, typer.Option("--topics", help="Also list the topics it needs.")] = False,
) -> None:
    """Load a project, check its declarations, and show them."""
    loaded = load_project(project or os.environ.get("TIDEMILL_PROJECT") or ".")
    specs = topic_specs(loaded)  # refuses an event whose topic is one of the project's own
    counts = ", ".join(
        _number(len(found), word) for found, word in ((loaded.events, "event"), (loaded.views, "view"), (loaded.models, "model"))
    )
    console.print(f"project [bold]{loaded.name}[/bold]: {counts}", highlight=False)
    for view in loaded.views.values():
        some = "" if view.where is None else f" where {escape(view.where)}"
        some += "" if view.erase is None else f", erased by {escape(view.erase)}"
        console.print(f"\nview [bold]{view.name}[/bold]: {view.source.name} by {view.key.name}{some}; {_kept(view)}", highlight=False)
        console.print(Padding(", ".join(feature.name for feature in view.served), (0, 0, 0, 4), expand=False), highlight=False)
    for model in loaded.models.values():
        console.print(f"\nmodel [bold]{model.name}[/bold]: {len(model.input_names)} inputs; a request gives", highlight=False)
        console.print(Padding(", ".join(model.request_fields), (0, 0, 0, 4), expand=False), highlight=False)
        if classes := model.outcome.class_names:
            console.print(Padding(Text(f"answers with one of {', '.join(classes)}"), (0, 0, 0, 4), expand=False), highlight=False)
        if own := _reading_what_asks(model):
            note = f"{', '.join(own)}: of the event that asks, {model.on.name}. Ask before it is published: training leaves it out"
            console.print(Padding(note, (0, 0, 0, 4), expand=False), highlight=False)
    if topics:
        table = Table("topic", "partitions")
        for name, spec in specs.items():
            table.add_row(name, str(spec.partitions))
        console.print(table)


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _reading_what_asks(model: Model) -> list[str]:
    """The model's views to which the event that asks belongs as soon as it is published, and in training only afterwards."""
    return [view.name for view in model.views if view.source is model.on and model.at == model.on.time]


def _kept(view: FeatureView) -> str:
    """How long its tiles are, and how long a value counts."""
    tiles = sorted({feature.window.grid.tile_ms for feature in view.served if feature.window.bounded})
    kept = f"tiles of {', '.join(map(format_ms, tiles))}" if tiles else "no windows"
    return kept if view.ttl is None else f"{kept}; expires after {view.ttl}"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(check)
