"""The command line: `tidemill COMMAND`."""

import contextlib
import logging
import os
import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from tidemill.cli import (
    alerts,
    card,
    catalogue,
    dead_letters,
    erase,
    explain,
    importing,
    init,
    lineage,
    load,
    models,
    playback,
    project,
    proof,
    rebuild,
    repartition,
    reproduce,
    retraining,
    roles,
    runs,
    score,
    simulate,
    stack,
    ui,
    verify,
    why,
)
from tidemill.errors import TidemillError
from tidemill.runtime.logs import configure

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Real-time machine learning in Python.")


@app.callback()
def _options(
    project_path: Annotated[
        str | None, typer.Option("--project", help="The project: a folder with project.py, a file, or a module.", envvar="TIDEMILL_PROJECT")
    ] = None,
) -> None:
    if project_path is not None:
        os.environ["TIDEMILL_PROJECT"] = os.path.abspath(project_path) if os.path.exists(project_path) else project_path


for part in (
    init,
    stack,
    project,
    load,
    catalogue,
    models,
    roles,
    importing,
    runs,
    card,
    score,
    reproduce,
    retraining,
    playback,
    simulate,
    proof,
    verify,
    rebuild,
    repartition,
    explain,
    dead_letters,
    alerts,
    erase,
    ui,
    why,
    lineage,
):
    part.register(app)


def main() -> NoReturn:
    """Run the command line, and end the process; an error of ours is printed without a traceback and ends with exit code 1."""
    configure("tidemill", level=logging.WARNING)
    try:
        app()
    except TidemillError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        _end(1)
    except SystemExit as ended:
        _end(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    _end(0)


def _end(code: int) -> NoReturn:
    """Threads of pyarrow may still run, and would abort Python when it ends, after all is done (apache/arrow#34314)."""
    with contextlib.suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
