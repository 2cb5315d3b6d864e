"""What pyproject.toml promises: which packages come with an extra, and which modules a part of the code needs."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.infra.files import ROOT


@cache
def pyproject() -> dict[str, Any]:
    """The table `project`."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def declared(*extras: str) -> set[str]:
    """The distributions that base dependencies and extras name, extras of extras included."""
    texts = [*pyproject()["dependencies"], *(text for extra in extras for text in pyproject()["optional-dependencies"][extra])]
    found: set[str] = set()
    for requirement in map(Requirement, texts):
        found |= declared(*requirement.extras) if requirement.name == "tidemill" else {canonicalize_name(requirement.name)}
    return found


def installed_with(*extras: str) -> set[str]:
    """The distributions that an image of these extras holds: what is declared, and what that needs."""
    texts = [*pyproject()["dependencies"], *(text for extra in extras for text in pyproject()["optional-dependencies"][extra])]
    found: dict[str, set[str]] = {}
    waiting = [Requirement(text) for text in texts]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == "tidemill":
            waiting += [Requirement(text) for extra in requirement.extras for text in pyproject()["optional-dependencies"][extra]]
        elif name not in found or requirement.extras - found[name]:
            found[name] = found.get(name, set()) | requirement.extras
            waiting += _needs(name, requirement.extras)
    return set(found)


def _needs(name: str, extras: Iterable[str]) -> Iterator[Requirement]:
    """What an installed distribution needs here; one that another platform needs is not installed and needs nothing."""
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, texts):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


@cache
def _packages() -> dict[str, set[str]]:
    """Top-level package -> the installed distributions that provide it."""
    return {top: {canonicalize_name(name) for name in names} for top, names in metadata.packages_distributions().items()}


def providers(top: str) -> set[str]:
    """The distributions that provide a top-level package."""
    return _packages().get(top, set())


def source_of(module: str) -> Path | None:
    """The file of a module of ours; None for anything else, a name inside a module included."""
    for root in ("shared", "services"):
        path = ROOT / root / Path(*module.split("."))
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def imported(tree: ast.Module, *, deep: bool) -> Iterator[str]:
    """Names a module imports, `from a import b` as both a and a.b; `deep`: inside functions too. Not what only type checkers see."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif deep or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def third_party(service: str) -> dict[str, set[str]]:
    """Top-level package -> our modules that import it, when the modules of a service and all they import are loaded.

    Of a service's own modules the imports inside functions count too; a shared function may need what only its callers have.
    """
    folder = ROOT / "services" / f"tidemill_{service}"
    waiting = [f"tidemill_{service}", *(f"tidemill_{service}.{path.stem}" for path in folder.glob("*.py"))]
    seen: set[str] = set()
    found: dict[str, set[str]] = {}
    while waiting:
        module = waiting.pop()
        file = source_of(module)
        if file is None or module in seen:
            continue
        seen.add(module)
        for name in imported(ast.parse(file.read_text()), deep=module.startswith("tidemill_")):
            top = name.partition(".")[0]
            if top.startswith("tidemill"):
                parts = name.split(".")
                waiting += [".".join(parts[: i + 1]) for i in range(len(parts))]
            elif top not in sys.stdlib_module_names:
                found.setdefault(top, set()).add(module)
    return found


GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}: it does not come with this extra", name=name)
sys.meta_path.insert(0, Guard())
"""


def guard(*extras: str) -> str:
    """Python source: from here on, a package that does not come with base dependencies and these extras cannot be imported."""
    present = installed_with(*extras)
    absent = sorted(top for top in _packages() if not providers(top) & present and not top.startswith("tidemill"))
    return f"absent = set({absent!r})\n{GUARD}"
