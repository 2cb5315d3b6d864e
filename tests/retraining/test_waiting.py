"""Waiting has an end: silence is told, and the horizon decides for what serves on evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.retraining.made import NOW_MS
from tests.retraining.rig import PROJECT

from tidemill import Retrain
from tidemill.cli.stack import _wished
from tidemill.declarations.project import Project, load_project
from tidemill.gate.rule import Decision
from tidemill.local.services import SERVICES, choose
from tidemill_retraining.history import OpenRun
from tidemill_retraining.jobs import Ended
from tidemill_retraining.silence import Silence
from tidemill_retraining.stages import at_the_horizon
from tidemill_retraining.told import rehearsed


def test_silence_is_told_now_and_then() -> None:
    """Once in a fourteenth of the horizon, with how long it lasts; a new outcome, or another step, begins it anew."""
    silence = Silence()
    assert [silence.since("a", 5, now, 14.0) for now in (0.0, 0.5, 1.0, 1.5, 2.0)] == [0.0, 0.0, 1.0, 0.0, 2.0]
    assert silence.since("a", 6, 2.5, 14.0) == 0.0
    assert silence.since("a", 6, 3.5, 14.0) == 1.0
    assert silence.since("b", 0, 3.6, 14.0) == 0.0


@pytest.mark.parametrize(("step", "verdict"), [("shadow", "reject"), ("canary", "reject"), ("promoted", "promote")])
def test_the_horizon(step: str, verdict: str) -> None:
    """A version that has not shown enough leaves; one that was promoted on evidence stays; the reason says what was missing."""
    run = OpenRun("late", 1, step, NOW_MS, NOW_MS, ())  # type: ignore[arg-type]
    decision = at_the_horizon(run, Retrain(horizon="3d"), Decision("wait", "12 of 200 outcomes", []))
    assert decision.verdict == verdict
    assert decision.reason.endswith("shown to be better within 3d: 12 of 200 outcomes") or decision.reason.endswith(
        "within 3d: 12 of 200 outcomes"
    )


def test_a_rehearsal_that_says_nothing_is_wrong() -> None:
    """Neither the end of a process nor strange words count as a good rehearsal."""
    assert rehearsed(Ended("ended by SIGKILL", [])).wrong == "ended by SIGKILL"
    assert "it said" in rehearsed(Ended("", [])).wrong
    assert "it said" in rehearsed(Ended("", ["hello"])).wrong
    assert rehearsed(Ended("", ['{"version_ms":1.0,"champion_ms":2.0}'])).wrong == ""


def test_up_starts_it_where_it_is_wanted(tmp_path: Path) -> None:
    """A project with a model that is retrained starts the service beside those that always run; another does not, unless it is named."""
    (tmp_path / "project.py").write_text(PROJECT.format(name="wishes"))
    assert [service.name for service in choose([], _wished(load_project(tmp_path)))] == [*(one.name for one in SERVICES), "retraining"]
    assert choose([], _wished(Project("plain"))) == SERVICES
    assert [service.name for service in choose(["retraining"])] == ["retraining"]
