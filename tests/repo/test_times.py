"""The costs of tests are added up by test and folder, and every folder has a budget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.repo.sources import ROOT
from tests.times import FOLDER, SLOWEST, Cost, budgets, read, told

README = (FOLDER / "README.md").read_text()


def test_every_folder_has_a_budget() -> None:
    """A folder that is added must say what it may cost; one that is gone says nothing any more. Folders without tests need none."""
    folders = {path.relative_to(FOLDER).parts[0] for path in FOLDER.glob("*/**/test_*.py")}
    assert budgets(README).keys() == folders
    assert all(seconds > 0 for seconds in budgets(README).values())


def test_phases_are_added_up() -> None:
    """Set-up, call and tear-down of a test are one cost, whatever lies between them."""
    lines = [
        '["tests/a/test_x.py::test_one", 1.0, 0.5]',
        '["tests/b/test_y.py::test_two", 4.0, 0.25]',
        '["tests/a/test_x.py::test_one", 2.0, 0.25]',
    ]
    assert read(lines) == {"tests/a/test_x.py::test_one": Cost(3.0, 0.75), "tests/b/test_y.py::test_two": Cost(4.0, 0.25)}


def test_the_dearest_come_first_and_are_set_beside_their_budgets() -> None:
    """Twenty tests at most, then folders, with those over their budget named, and the sums."""
    tests = {f"tests/a/test_x.py::test_{i}": Cost(float(i), 1.0) for i in range(30)} | {"tests/b/test_y.py::test_z": Cost(9.0, 2.0)}
    lines = told(tests, {"a": 400, "b": 8})
    assert lines[0] == f"The slowest {SLOWEST} tests:"
    assert [line.split()[0] for line in lines[1:4]] == ["29.0", "28.0", "27.0"]
    folders = [line.split() for line in lines[SLOWEST + 3 :]]
    assert folders == [
        ["a", "435", "400", "30", "over", "its", "budget"],
        ["b", "9", "8", "2", "over", "its", "budget"],
        ["all", "444", "408", "32"],
    ]
    assert "none" in "\n".join(told(tests, {"a": 436}))
    assert not told({"tests/a/x.py::t": Cost(1.0, 1.0)}, {"a": 1})[-2].endswith("budget")


INNER = """
import subprocess, sys

def test_works():
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)

def test_rests():
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_writes_what_each_test_took(tmp_path: Path, workers: str) -> None:
    """With workers of xdist or without: three phases of each test, once, with the processor time of child processes."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tests.times"]\n')
    (tmp_path / "test_inner.py").write_text(INNER)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "--times", "new/times.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "new" / "times.jsonl").read_text().splitlines()
    assert len(lines) == 6
    costs = {test.partition("::")[2]: cost for test, cost in read(lines).items()}
    assert costs["test_works"].processor > costs["test_rests"].processor
