"""`tidemill train`: a job in a process of its own, with the running stack's addresses."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from tidemill.cli.target import need, target
from tidemill.cli.times import to_ms


def train(
    model: Annotated[str, typer.Argument(help="A model of the project.")],
    until: Annotated[str | None, typer.Option(help="Use what was known before this time (ISO 8601, UTC).", show_default="now")] = None,
    deploy: Annotated[bool, typer.Option(help="Let the new version serve.")] = True,
) -> None:
    """Train a model from the offline store, prove that its ONNX form is equal, track it in MLflow, and deploy it by an event."""
    need("skl2onnx", "training")
    if until is not None:
        to_ms(until)  # a mistake in it is reported before anything starts
    command = [
        sys.executable,
        "-m",
        "tidemill_training",
        model,
        *(["--until", until] if until else []),
        *([] if deploy else ["--no-deploy"]),
    ]
    raise typer.Exit(subprocess.run(command, env=target().environment, check=False).returncode)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(train)
