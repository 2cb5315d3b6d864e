"""Waits of tests: none is so short that a busy machine fails it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from tests.patience import PATIENCE_SECONDS
from tests.repo.sources import name_of, python_files

LIMITED = {"timeout": 1, "wait": 1, "communicate": 1, "join": 1, "result": 1, "wait_for": 2}
"""Calls whose last argument, when there are so many, is how many seconds they wait at most."""
LIMITS = {"timeout", "limit_seconds", "ready_seconds"}
"""Arguments and parameters that are such a limit."""


def short_waits(text: str) -> Iterator[int]:
    """The lines of a test that wait for less than the patience, but for those whose comment says why.

    A wait of at most two seconds is one that shall end without what it waits for.
    """
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        for limit in _limits(node):
            short = isinstance(limit, ast.Constant) and isinstance(limit.value, int | float) and 2 < limit.value < PATIENCE_SECONDS
            if short and "  # " not in lines[limit.lineno - 1]:
                yield limit.lineno


def _limits(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg in LIMITS)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if len(node.args) == LIMITED.get(called):
            yield node.args[-1]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        named = [*node.args.posonlyargs, *node.args.args]
        defaults = zip(named[len(named) - len(node.args.defaults) :], node.args.defaults, strict=True)
        yield from (default for parameter, default in defaults if parameter.arg in LIMITS)


def test_no_wait_is_short() -> None:
    """Tests wait with PATIENCE_SECONDS, or a comment in the line says why less is enough."""
    files = [path for path in python_files("tests") if "containers" not in path.parts]
    assert [f"{name_of(path)}:{line}" for path in files for line in short_waits(path.read_text())] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("asyncio.timeout(20)", [1]),
        ("process.wait(timeout=5)", [1]),
        ("def until(holds, limit_seconds=60): pass", [1]),
        ("process.wait(5)  # it shall not end", []),
        ("asyncio.timeout(180)", []),
        ("asyncio.wait({task}, timeout=0.5)", []),
        ("process.wait(PATIENCE_SECONDS)", []),
    ],
)
def test_short_waits_are_found(text: str, found: list[int]) -> None:
    """Those of calls and of parameters; not what says why, waits long enough, or waits for nothing."""
    assert list(short_waits(text)) == found
