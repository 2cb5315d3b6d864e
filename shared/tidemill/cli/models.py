"""`tidemill train` and `tidemill train-set`: a job in a process of its own, with the running stack's addresses."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tidemill.cli.job import run_job
from tidemill.cli.roles import share_of
from tidemill.cli.target import need, target
from tidemill.cli.times import to_ms
from tidemill.errors import TidemillError
from tidemill.signals import signal_told


class RoleName(StrEnum):
    """The roles of versions that serve."""

    champion = "champion"
    challenger = "challenger"
    shadow = "shadow"


Model = Annotated[str, typer.Argument(help="A model of the project.")]
Until = Annotated[str | None, typer.Option(help="Use what was known before this time (ISO 8601, UTC).", show_default="now")]
Labels = Annotated[
    Path | None, typer.Option(help="A Parquet or CSV file of label rows (time, label, entities) to use instead of outcome events.")
]

As = Annotated[RoleName | None, typer.Option("--as", help="The role of the new version.", show_default="champion")]
ShareOption = Annotated[str | None, typer.Option("--share", help="A challenger's share of the requests.", show_default="5%")]


def seat_arguments(*, deploy: bool, role: RoleName | None, share: str | None) -> list[str]:
    """The arguments of a job for what becomes of the new version. Raises TidemillError when they contradict each other."""
    if not deploy:
        if role is not None:
            raise TidemillError("a version that is not deployed has no role", mend="leave out --as, or --no-deploy")
        return ["--no-deploy"]
    if share is not None and role is not RoleName.challenger:
        raise TidemillError("only a challenger has a share of the requests", mend="add --as challenger, or leave out --share")
    return [*(["--as", role.value] if role else []), *(["--share", f"{share_of(share)}"] if share else [])]


def train(
    model: Model,
    until: Until = None,
    labels: Labels = None,
    deploy: Annotated[bool, typer.Option(help="Let the new version serve.")] = True,
    role: As = None,
    share: ShareOption = None,
    new: Annotated[bool, typer.Option("--new", help="Begin anew, also where a training was ended before it was done.")] = False,
) -> None:
    """Train a model from the archive, prove that its ONNX form is equal, track it in MLflow, and deploy it by an event."""
    need("skl2onnx", "training")
    _run(model, until, labels, [*seat_arguments(deploy=deploy, role=role, share=share), *(["--new"] if new else [])])


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
    return TidemillError(
        f"training {model!r} was ended {f'{stage} ' if stage else ''}by {signal_told(number)}; what serves is as it was",
        mend="run the same command again: it goes on where it was",
    )


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(train)
    app.command("train-set")(train_set)
