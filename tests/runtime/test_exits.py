"""Ends are counted over restarts: the same service runs again and again, as processes that end in every way there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys
from tidemill.runtime import exits, metrics
from tidemill.runtime.entry import service_main

def run():
    values = {{s.labels["reason"]: int(s.value) for m in metrics.PROCESS_EXITS.collect() for s in m.samples if s.name.endswith("_total")}}
    print(values["stuck"], values["failed"], values["killed"], flush=True)
    {body}

sys.exit(service_main("test", run))
"""
ENDS = {
    "pass": 0,
    "raise ValueError": 1,
    "os.kill(os.getpid(), signal.SIGKILL)": -9,
    "exits.end('stuck'); os._exit(70)": 70,
}


def run(folder: Path | None, body: str) -> tuple[int, list[int], str]:
    """Run the service once: its exit code, what its metric shows (stuck, failed, killed), its log."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/shared"} | ({"TIDEMILL_RUN_FOLDER": str(folder)} if folder else {})
    ended = subprocess.run([sys.executable, "-c", PROGRAM.format(body=body)], env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, [int(count) for count in ended.stdout.split()], ended.stderr


@pytest.mark.integration
def test_every_end_is_counted_by_its_reason(tmp_path: Path) -> None:
    """Each run shows how all before it ended; an end on request counts for nothing."""
    counts = []
    for body, code in [*ENDS.items(), *reversed(ENDS.items())]:
        ended, seen, _ = run(tmp_path / "run", body)
        assert ended == code
        counts.append(seen)
    assert counts == [[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1], [2, 1, 1], [2, 1, 2], [2, 2, 2]]


@pytest.mark.slow
def test_without_a_folder_each_run_counts_from_nothing() -> None:
    """Nothing is kept, nothing is written."""
    assert run(None, "raise ValueError")[:2] == run(None, "raise ValueError")[:2] == (1, [0, 0, 0])


@pytest.mark.parametrize("damage", ["folder", "content"])
def test_a_file_that_cannot_be_used_is_told_and_no_more(tmp_path: Path, damage: str) -> None:
    """The service starts and ends as ever."""
    folder = tmp_path / "run"
    if damage == "folder":
        folder.write_text("a file where the folder should be")
    else:
        folder.mkdir()
        (folder / "test.exits.json").write_bytes(b'{"running": tr')
    code, seen, log = run(folder, "pass")
    assert (code, seen) == (0, [0, 0, 0])
    assert ("cannot be counted" if damage == "folder" else "is lost") in log
