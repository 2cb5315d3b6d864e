"""`tidemill ui mlflow`: MLflow's pages of what was trained here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.console import console
from tidemill.cli.target import offline_target
from tidemill.errors import TidemillError

PORT = 5000

commands = typer.Typer(no_args_is_help=True, help="Pages of other programs about this project.")


@commands.command("mlflow")
def mlflow_ui(
    port: Annotated[int, typer.Option(help="The port on this machine.")] = PORT,
) -> None:
    """Show MLflow's pages of the local runs and versions, until Ctrl-C. A server (MLFLOW_TRACKING_URI) has its own."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if given.startswith("http"):
        console.print(f"MLflow runs at {given}", highlight=False, markup=False)
        return
    check_pages()
    _, store = offline_target()
    uri = given or local_uri(store.url)
    console.print(f"http://127.0.0.1:{port}: {uri}", highlight=False, markup=False)
    raise typer.Exit(subprocess.run(command_of(uri, port), check=False).returncode)


def local_uri(offline_root: str) -> str:
    """Where training keeps its runs: a database below a local offline store, else below .tidemill. Raises TidemillError when there is none."""
    folder = (Path(".tidemill") if "://" in offline_root else Path(offline_root)).absolute() / "mlflow"
    if not (folder / "mlflow.db").is_file():
        raise TidemillError(
            f"there is no {folder / 'mlflow.db'}", mend="make a version of a model first, by a command that `tidemill models list` shows"
        )
    return f"sqlite:///{folder / 'mlflow.db'}"


def command_of(uri: str, port: int) -> list[str]:
    """The command that shows the pages of a database."""
    return [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]


def check_pages() -> None:
    """Raises TidemillError when the installed MLflow has no pages: training needs mlflow-skinny alone."""
    try:
        importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError as error:
        skinny = importlib.util.find_spec("mlflow") is not None
        version = f"=={importlib.metadata.version('mlflow-skinny')}" if skinny else ""
        told = "mlflow-skinny has no pages" if skinny else "MLflow is not installed"
        mend = f"run: {shlex.quote(sys.executable)} -m pip install mlflow{version}"
        raise TidemillError(told, mend=mend) from error


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="ui")
