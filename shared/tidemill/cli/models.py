"""`tidemill train` and `tidemill train-set`: a job in a process of its own, with the running stack's addresses."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tidemill.cli.job import run_job
from tidemill.cli.target import need, target
from tidemill.cli.times import to_ms
from tidemill.errors import TidemillError

Model = Annotated[str, typer.Argument(help="A model of the project.")]
Until = Annotated[str | None, typer.Option(help="Use what was known before this time (ISO 8601, UTC).", show_default="now")]
Labels = Annotated[
    Path | None, typer.Option(help="A Parquet or CSV file of label rows (time, label, entities) to use instead of outcome events.")
]


def train(
    model: Model,
    until: Until = None,
    labels: Labels = None,
    deploy: Annotated[bool, typer.Option(help="Let the new version serve.")] = True,
    new: Annotated[bool, typer.Option("--new", help="Begin anew, also where a training was ended before it was done.")] = False,
) -> None:
    """Train a model from the archive, prove that its ONNX form is equal, track it in MLflow, and deploy it by an event."""
    need("skl2onnx", "training")
    _run(model, until, labels, [*([] if deploy else ["--no-deploy"]), *(["--new"] if new else [])])


def train_set(
    model: Model,
    out: Annotated[Path, typer.Option(help="The file to write: .parquet or .csv.")],
    until: Until = None,
    labels: Labels = None,
) -> None:
    """Write the training set of a model: subject, time, label, and the inputs by name, each as it would have been served then."""
    need("skl2onnx", "training")
    _run(model, until, labels, ["--out", str(out)])


def _run(model: str, until: str | None, labels: Path | None, more: list[str]) -> NoReturn:
    """Runs the job with the running stack's addresses, and exits with its code."""
    if until is not None:
        to_ms(until)  # a mistake in it is reported before anything starts
    chosen = [*(["--until", until] if until else []), *(["--labels", str(labels)] if labels else []), *more]
    command = [sys.executable, "-m", "tidemill_training", model, *chosen]
    at = target()
    code = run_job(command, at.environment)
    if code < 0:
        raise ended_by(model, -code, ended_stage(at.offline, model))
    raise typer.Exit(code)


def ended_stage(offline: str, model: str) -> str:
    """Where the newest run of a model was ended: "in stage fit"; "" when it is over."""
    from tidemill.training.stages.reading import read_runs

    newest = next(iter(read_runs(offline, model)), None)
    return newest.said if newest is not None and newest.state == "ended" else ""


def ended_by(model: str, number: int, stage: str = "") -> TidemillError:
    """What to say of a job that a signal ended: most often the system's, which found no memory for it. `stage`: as `ended_stage` has it."""
    name = signal.Signals(number).name
    memory = "; that is how the system ends what needs more memory than there is" if name in ("SIGKILL", "SIGABRT") else ""
    return TidemillError(
        f"training {model!r} was ended {f'{stage} ' if stage else ''}by {name}{memory}; what serves is as it was",
        mend="run the same command again: it goes on where it was",
    )


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(train)
    app.command("train-set")(train_set)
