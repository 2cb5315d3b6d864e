"""Seeded histories of the whole protocol under faults end right, every one; and a history is the same whenever it is replayed."""

from __future__ import annotations

import os

import pytest
from tests.simulation.__main__ import main
from tests.simulation.faults import FAULTS
from tests.simulation.filling.faults import FILLING_FAULTS
from tests.simulation.running import Cores, replay
from tests.simulation.world import Step
from tests.turn import turn

HISTORIES = int(os.environ.get("TIDEMILL_HISTORIES", "20000"))
THIRDS = 3
FEW = range(min(300, HISTORIES))


@pytest.mark.slow
def test_some_histories_end_right(histories: Cores) -> None:
    """Three hundred histories: crashes, zombies, lost replies, losing stores and brokers; never a bit different, lost, doubled or stuck."""
    outcome = histories.run_all(FEW)
    assert not outcome.wrong, str(outcome)


@pytest.mark.integration
@pytest.mark.last
def test_many_histories_end_right() -> None:
    """The same for the third of TIDEMILL_HISTORIES (20,000) that is due, on all cores."""
    third = HISTORIES // THIRDS
    with Cores() as cores:
        outcome = cores.run_all(range(HISTORIES)[turn(THIRDS) * third :][:third])
    assert not outcome.wrong, str(outcome)


@pytest.mark.integration
@pytest.mark.soak
def test_all_histories_end_right() -> None:
    """The same for all of them."""
    with Cores() as cores:
        outcome = cores.run_all(range(HISTORIES))
    assert not outcome.wrong, str(outcome)


@pytest.mark.parametrize("seed", [6, 7])
def test_a_history_is_the_same_again(seed: int) -> None:
    """A seed of each kind stands for one history: step by step the same, in another process with other hashes too."""
    stories: list[list[Step]] = [[], []]
    for story in stories:
        replay(seed, story=story)
    assert stories[0] == stories[1]
    assert len(stories[0]) > 50


def test_a_seed_is_replayed_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """The command prints the same table each time, whatever the hashes of the process that calls it."""
    told = []
    for _ in range(2):
        assert main(["7"]) == 0
        told.append(capfd.readouterr().out)
    assert told[0] == told[1]
    assert "everything is as it should be" in told[0]


@pytest.mark.slow
def test_every_fault_happens() -> None:
    """No kind of fault is left out by the draw."""
    story: list[Step] = []
    for seed in (*range(60), *range(67, 900, 30)):
        replay(seed, story=story)
    assert {step.action for step in story if step.actor == "fault"} == {*FAULTS, *FILLING_FAULTS}


def test_a_wrong_history_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """The table of a history that went wrong ends with what was wrong, and the exit code says so."""
    assert main(["0", "--mutation", "no-comparison"]) == 1
    lines = [line for line in capfd.readouterr().out.splitlines() if line.strip()]
    assert lines[0].split() == ["history", "0", "with", "no-comparison"]
    assert "partition" in lines[1]
    assert " check " in lines[-1]
    assert " I" in lines[-1]
