"""The command line: ``tidemill COMMAND``."""

import typer
from rich.console import Console

from tidemill.cli import stack
from tidemill.errors import TidemillError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
stack.register(app)


def main() -> None:
    """Run the command line; an error of ours is printed without a traceback and ends with exit code 1."""
    try:
        app()
    except TidemillError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
