"""`tidemill init`: a new project from a template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.console import console
from tidemill.declarations.project import load_project
from tidemill.errors import DeclarationError, NotFound, TidemillError
from tidemill.names import check_name

TEMPLATES = Path(__file__).parents[1] / "templates"
COMMON = "_common"
"""What every project has beside the files of its template."""
NAME = "myproject"
"""Stands in the files of templates for the name of the project."""
DOT = "dot."
"""Begins the name of a file or folder that begins with a dot in a project: many tools pass over such names when they copy."""


class UnknownTemplate(NotFound):
    """There is no template of this name."""

    kind = "template"


def templates() -> list[str]:
    """The names of all templates: each is a folder."""
    return sorted(path.name for path in TEMPLATES.iterdir() if path.is_dir() and path.name[0] not in "_.")


def files_of(template: str) -> dict[Path, Path]:
    """The files of a project: its path in there -> the file of the template. A template may have a common file of its own."""
    found: dict[Path, Path] = {}
    for folder in (TEMPLATES / COMMON, TEMPLATES / template):
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if path.is_file() and "__pycache__" not in parts:
                found[Path(*(re.sub(f"^{re.escape(DOT)}", ".", part) for part in parts))] = path
    return dict(sorted(found.items()))


def make_project(folder: Path, template: str) -> list[Path]:
    """Writes a project with the name of its folder, and returns its files. Raises UnknownTemplate, and TidemillError for a folder that cannot
    be one or holds something; nothing is written then."""
    if template not in (known := templates()):
        raise UnknownTemplate(template, known)
    name = folder.absolute().name.replace("-", "_")
    try:
        check_name(name, str(folder), "NAME")
    except DeclarationError as error:
        raise TidemillError(f"{name!r} names no project", mend=error.mend) from None
    if folder.exists() and (not folder.is_dir() or any(path.name != ".git" for path in folder.iterdir())):
        raise TidemillError(f"{folder} is there already", mend="name a new or empty folder")
    files = files_of(template)
    for path, source in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(source.read_text(encoding="utf-8").replace(NAME, name), encoding="utf-8")
    return list(files)


def init(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="A new folder; the project has its name.")],
    template: Annotated[str, typer.Option("--template", "-t", help=f"What it begins as: {', '.join(templates())}.")] = "tabular",
) -> None:
    """Make a project that runs at once: declarations, a pipeline, sample data, tests, a file for CI, and one for docker compose.

    tabular: numbers and categories. text: short messages, sorted by their words. image: small pictures, with a page for people who use it.
    fraud: payments, windows over cards and merchants, late and rare truth, and retraining by itself.
    """
    written = make_project(folder, template)
    load_project(folder)
    console.print(f"{folder}: {', '.join(map(str, written))}", markup=False, highlight=False)
    console.print(f"now: cd {folder}, and follow README.md", markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(init)
