"""A plugin: files of whose tests the marks asked for (`-m`) choose none are not read. Each worker would read all files, for ten seconds.

What a file's text says of marks decides. So a mark that matters here must stand in the file of its tests.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from tests.turn import due

MARKS = frozenset({"integration", "last", "slow", "soak"})
SERVERS = frozenset({"kafka", "mortal", "valkey"})
"""The fixtures that start servers."""
_EXPRESSION = re.compile(r"(not )?\w+( and (not )?\w+)*")
_NAMED = re.compile(r"\bmark\.(\w+)")
_OF_ALL = re.compile(r"^pytestmark = .*$", re.MULTILINE)


def unwanted(text: str, expression: str) -> bool:
    """Whether an expression like `integration and not last` chooses no test of a file of this text. Of any other expression: False."""
    if not _EXPRESSION.fullmatch(expression):
        return False
    some, of_all = {*_NAMED.findall(text)}, {*_NAMED.findall(" ".join(_OF_ALL.findall(text)))}
    terms = expression.split(" and ")
    return any(term.removeprefix("not ") in of_all if term.startswith("not ") else term in MARKS - some for term in terms)


@cache
def _text(file: Path) -> str:
    return file.read_text()


@cache
def _named(file: Path) -> frozenset[str]:
    """The marks that a file names: asked for each of its tests."""
    return frozenset(_NAMED.findall(_text(file)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a file of tests unread where nothing in it is wanted."""
    of_tests = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if of_tests and unwanted(_text(collection_path), config.option.markexpr) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out tests whose share (`share(of, place)`) is not due, see `tests/turn.py`. Raises UsageError for a test that has a mark which is not in its file, and for one that wants a server without the mark `integration`:
    `make check` would start the server for it."""
    for item in items:
        hidden = MARKS.intersection(mark.name for mark in item.iter_markers()) - _named(item.path)
        if hidden:
            raise pytest.UsageError(f"{item.nodeid} is marked {', '.join(hidden)} from elsewhere: write pytest.mark in its file")
        wanted = SERVERS.intersection(getattr(item, "fixturenames", ()))
        if wanted and item.get_closest_marker("integration") is None:
            raise pytest.UsageError(f"{item.nodeid} wants {', '.join(sorted(wanted))}: mark it integration")
    waits = [item for item in items if (share := item.get_closest_marker("share")) is not None and not due(*share.args)]
    if waits:
        config.hook.pytest_deselected(items=waits)
        items[:] = [item for item in items if item not in waits]
