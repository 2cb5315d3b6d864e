"""The project's own files, for the rules about them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICES = sorted(path for path in (ROOT / "services").iterdir() if (path / "__init__.py").is_file())
CODE = ("shared", "services", "examples", "benchmarks", "tests")


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that belongs to the project; outside a checkout, all but what tools leave behind."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        left = {"__pycache__", "node_modules", "dist", "mlruns"}
        paths = [path for path in ROOT.rglob("*") if not any(part in left or part[0] == "." for part in path.relative_to(ROOT).parts)]
    return tuple(sorted(path for path in paths if path.is_file()))


def python_files(*folders: str) -> list[Path]:
    """The project's Python files below some top folders."""
    return [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def name_of(path: object) -> str:
    """A file as messages call it."""
    return path.relative_to(ROOT).as_posix() if isinstance(path, Path) else str(path)


def lines_of(path: Path) -> int:
    """The number of lines of a file."""
    return path.read_bytes().count(b"\n")


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(path: Path) -> Iterator[Function]:
    """Every function of a file, methods and inner ones included."""
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function))


def imports_of(path: Path) -> Iterator[str]:
    """The full name of every module a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
