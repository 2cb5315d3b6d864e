"""`tidemill models import`: a version of a model from a file that was made elsewhere, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.job import run_job
from tidemill.cli.models import As, Labels, ShareOption, seat_arguments
from tidemill.cli.roles import commands
from tidemill.cli.target import need, target
from tidemill.cli.times import to_ms


@commands.command("import")
def import_file(
    model: Annotated[str, typer.Argument(help="A model of the project.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The model file.")],
    contract: Annotated[Path, typer.Option(help="The JSON file that says what the file takes and gives.")],
    until: Annotated[
        str | None, typer.Option(help="Measure on what was known before this time (ISO 8601, UTC).", show_default="now")
    ] = None,
    labels: Labels = None,
    deploy: Annotated[bool, typer.Option(help="Let the new version serve.")] = True,
    role: As = None,
    share: ShareOption = None,
) -> None:
    """Make a version from an ONNX file from elsewhere, by its contract: compared, measured, tracked and deployed as a trained one."""
    need("skl2onnx", "training")
    if until is not None:
        to_ms(until)  # a mistake in it is reported before anything starts
    more = [
        *(["--until", until] if until else []),
        *(["--labels", str(labels)] if labels else []),
        *seat_arguments(deploy=deploy, role=role, share=share),
    ]
    command = [sys.executable, "-m", "tidemill_training.importing", model, str(file), "--contract", str(contract), *more]
    raise typer.Exit(run_job(command, target().environment))


def register(app: typer.Typer) -> None:
    """Nothing more: the command is one of `tidemill models`, which `roles` adds."""
