"""The tree of errors as it is drawn and as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tidemill import errors
from tidemill.errors import DeclarationError, TidemillError


def below(kind: type[TidemillError], depth: int = 0) -> Iterator[tuple[int, str, int]]:
    """Depth, name and HTTP status of an error and all below it that errors.py defines."""
    yield depth, kind.__name__, kind.http_status
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from below(child, depth + 1)


def test_the_tree_is_drawn_as_it_is() -> None:
    """errors.py shows every error at its place with its status."""
    lines = re.findall(r"^([│├└─ ]*)(\w+) +(\d{3})\b", errors.__doc__ or "", re.MULTILINE)
    drawn = [(len(indent) // 4, name, int(status)) for indent, name, status in lines]
    assert sorted(drawn) == sorted(below(TidemillError))
    assert len(drawn) > 15


def test_a_message_is_cause_and_mend() -> None:
    """Both in the text; the cause alone where there is no mend."""
    assert str(TidemillError("cause", mend="mend")) == "cause; mend"
    assert str(TidemillError("cause")) == "cause"


@pytest.mark.parametrize(("field", "text"), [("name", "project.py:3: name: cause; mend"), (None, "project.py:3: cause; mend")])
def test_a_declaration_error_begins_with_its_place(field: str | None, text: str) -> None:
    """File and line first, as a compiler says it."""
    assert str(DeclarationError("cause", where="project.py:3", field=field, mend="mend")) == text
