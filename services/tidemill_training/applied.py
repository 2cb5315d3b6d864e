"""Training is by what is in force. What of the project's file is not in force yet must not be taken for it."""

from __future__ import annotations

from collections.abc import Callable

from tidemill.catalogue.definitions import Definitions
from tidemill.catalogue.plan import unapplied
from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError


def check_applied(definitions: Definitions, declared: Project, model: Model, note: Callable[[str], None]) -> None:
    """Raises TidemillError when the model, or a view that it reads, is not in force as it is declared; DeclarationError when it cannot be.
    `note` gets a line when only other things differ.

    `model`: of `declared`, the project's file.
    """
    changes, views = unapplied(definitions, declared), {view.name for view in model.views}
    wrong = [
        change
        for change in changes
        if (change.what, change.name) == ("model", model.name) or (change.what == "view" and change.name in views)
    ]
    if wrong:
        differing = "; ".join(f"{change.what} {change.name} is {change.kind} in project.py" + _told(change.details) for change in wrong)
        raise TidemillError(
            f"model {model.name!r} is not in force as it is declared: {differing}", mend="run: tidemill apply, then this command again"
        )
    if changes:
        note("project.py differs from what is in force: run tidemill plan")


def _told(details: tuple[str, ...]) -> str:
    return f" ({', '.join(details)})" if details else ""
