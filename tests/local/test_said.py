"""Lines of logs in words."""

from __future__ import annotations

import pytest

from tidemill.local.said import in_words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"time": "t", "level": "info", "service": "x", "message": "ready", "seconds": 2}', "info: ready seconds=2"),
        ("Traceback of something", "Traceback of something"),
        ("[1, 2]", "[1, 2]"),
        ('{"a": 1}', '{"a": 1}'),
        ('{"message": "odd", "exception": [{"exc_type": "E"}]}', ": odd"),
        ("", ""),
        ("y" * 1_000, f"{'y' * 150} ... {'y' * 150}"),
    ],
)
def test_other_lines(line: str, words: str) -> None:
    """A line of any kind is taken."""
    assert in_words(line) == words
