"""Which share of a long proof is due."""

from __future__ import annotations

import pytest
from tests.turn import due, turn


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


def test_each_place_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each turn one of the places is due; all of them where all are asked for."""
    for told in range(6):
        monkeypatch.setenv("TIDEMILL_TURN", str(told))
        assert [due(3, place) for place in range(3)] == [told % 3 == place for place in range(3)]
        assert due(3, told + 3)
    monkeypatch.setenv("TIDEMILL_TURN", "all")
    assert all(due(3, place) for place in range(3))
    assert 0 <= turn(3) < 3
