"""`tidemill reproduce`: a version is made again and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.roles import split_version
from tidemill.cli.target import need, offline_target, project_spec

if TYPE_CHECKING:
    from tidemill.training.reproduce import Reproduced

_WIDE = 120


def reproduce(version: Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="A stored version of a model.")]) -> None:
    """Make a version again, from the data, code, parameters and seeds that it was made with, and compare its answers. Nothing is stored.

    What is not as it was is listed: data, files of the project, parameters, packages, machine. Exit code 1 when an answer differs by a bit.
    """
    need("deltalake", "lake")
    need("skl2onnx", "training")
    from tidemill.models.artifact import stored_artifact
    from tidemill.training.reproduce import reproduce as again

    project, store = offline_target()
    model, name = split_version(version)
    artifact = stored_artifact(store.url, model, name)
    found = again(project, project_spec(), store, artifact, _say)
    _show(found, version)
    raise typer.Exit(0 if found.equal else 1)


def _show(found: Reproduced, version: str) -> None:
    if found.otherwise:
        table = Table("not as it was", "then", "now")
        for item in found.otherwise:
            table.add_row(*(Text(cell if len(cell) <= _WIDE else f"{cell[:_WIDE]}...") for cell in item))
        console.print(table)
    data = "the archive gives the same training set" if found.from_archive else "from the stored training set"
    kind = "pickle" if found.version.artifact.manifest.own_pipeline else "ONNX file"
    file = f"the same {kind}" if found.same_file else f"another {kind}"
    if found.equal:
        said = "all are equal bit for bit"
    else:
        said = f"they differ by up to {found.apart:.3g}" + ("" if found.allowed else ", more than ONNX may differ from its pipeline")
    _say(f"{version}: {data}; {file}; {found.rows:,} answers compared, {said}")


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(reproduce)
