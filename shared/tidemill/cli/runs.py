"""`tidemill runs`: the training runs of this machine, their stages, and their comparison as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.target import need, offline_target
from tidemill.errors import TidemillError, UnknownModel
from tidemill.timestamps import rfc3339

commands = typer.Typer(no_args_is_help=True, help="Training runs: list, show, compare.")
RunName = Annotated[str, typer.Argument(metavar="MODEL@RUN", help="A run of a model; it has the name of its version.")]


@commands.command("list")
def list_runs(model: Annotated[str | None, typer.Argument(help="Only this model.")] = None) -> None:
    """List the runs of each model, newest first: how they ended, what they took, how good they were."""
    from tidemill.training.stages.reading import read_runs

    names, root = _models(model)
    table = Table("model", "run", "state", "began", "seconds", "metrics", "what it said")
    for name in names:
        for run in read_runs(root, name):
            evaluation = run.evaluation
            metrics = ", ".join(f"{label} {value:.4g}" for label, value in evaluation.metrics.items()) if evaluation else ""
            said = "" if run.state == "trained" else run.said
            table.add_row(*map(Text, [name, run.record.run, run.state, rfc3339(run.record.began), f"{run.seconds:.1f}", metrics, said]))
    console.print(table)


@commands.command()
def show(run: RunName) -> None:
    """Show one run: its data, its stages with time and result, and the packages that computed."""
    from tidemill.training.stages.reading import read_run

    model, name, root = _named(run)
    found = read_run(root, model, name)
    table = Table(
        "stage", "seconds", "result", title=Text(f"{model} {name}: {found.state}{f', {found.said}' if found.said != name else ''}")
    )
    for stage in found.stages:
        table.add_row(*map(Text, [stage.stage, f"{stage.seconds:.2f}", stage.said]))
    console.print(table)
    for finding in found.found:
        console.print(Text(f"{finding.level}: {finding}"), soft_wrap=True)
    console.print(f"known until {rfc3339(found.record.until_ms)}, code {found.record.code[:12]}", highlight=False, markup=False)
    console.print(", ".join(f"{package} {version}" for package, version in found.record.packages.items()), highlight=False, markup=False)


@commands.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="MODEL@RUN", help="One or more runs.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("runs.html"),
) -> None:
    """Write a page that shows runs side by side: metrics, ROC, calibration, learning curve, importance, segments. It loads nothing."""
    from tidemill.training.report.page import page
    from tidemill.training.stages.reading import read_evaluation

    found = [read_evaluation(root, model, name) for model, name, root in map(_named, runs)]
    if len({one.output for one in found}) > 1:
        raise TidemillError("these runs cannot be compared: one gives a probability, the other a value", mend="compare runs of one model")
    try:
        out.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise TidemillError(f"{out} cannot be written: {error}", mend="name a file in a folder that exists and is yours") from error
    console.print(f"{out}: {len(found)} runs", highlight=False, markup=False)


def _models(model: str | None) -> tuple[list[str], str]:
    need("pyarrow", "lake")
    project, store = offline_target()
    if model is not None and model not in project.models:
        raise UnknownModel(model, list(project.models))
    return list(project.models) if model is None else [model], store.url


def _named(run: str) -> tuple[str, str, str]:
    """Model, run and offline store."""
    model, at, name = run.partition("@")
    if not (model and at and name) or "/" in name:
        raise TidemillError(f"{run!r} names no run", mend="write MODEL@RUN; `tidemill runs list` shows all")
    return model, name, _models(model)[1]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="runs")
