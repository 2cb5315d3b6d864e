"""Which share of a long proof is due."""

from __future__ import annotations

import pytest
from tests.turn import turn


def test_told_or_by_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told counts; without it a commit has the same share each time, one of those that there are."""
    monkeypatch.setenv("TIDEMILL_TURN", "5")
    assert [turn(shares) for shares in (1, 2, 3)] == [0, 1, 2]
    monkeypatch.delenv("TIDEMILL_TURN")
    for shares in (2, 3):
        assert turn(shares) == turn(shares)
        assert 0 <= turn(shares) < shares


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that is no checkout has the first share."""
    monkeypatch.delenv("TIDEMILL_TURN", raising=False)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert turn(3) == 0
