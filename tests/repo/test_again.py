"""A test that fails beside others is asked once more, and what must never fail is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.again import ONCE, may_be_asked
from tests.repo.sources import ROOT

FLAKY = """
from pathlib import Path
def test_one(): assert Path({file!r}).exists() or Path({file!r}).touch()
def test_two(): pass
"""


@pytest.mark.parametrize(
    ("names", "may"),
    [
        (["tests/cli/test_job.py::test_one"], True),
        (["tests/cli/test_job.py::test_one"] * 3, True),
        (["tests/cli/test_job.py::test_one"] * 4, False),
        (["tests/cli/test_job.py::test_one", "tests/faults/test_faults.py::test_two[kafka]"], False),
        (["tests/simulation/test_histories.py::test_one"], False),
        ([], False),
    ],
)
def test_what_may_be_asked_again(names: list[str], may: bool) -> None:
    """A few, none of them of the folders where one failure in a thousand is what is looked for."""
    assert may_be_asked(names) is may


def test_the_folders_that_are_asked_once_exist() -> None:
    """A folder that is moved is named anew."""
    assert [name for name in ONCE if not (ROOT / "tests" / name).is_dir()] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "code", "said"), [(FLAKY, 0, "racy: passed alone"), ("def test_one(): assert False", 1, "asked once more, alone: ")]
)
def test_a_run(tmp_path: Path, test: str, code: int, said: str) -> None:
    """What passes alone is green and called racy; what fails again is red; the first failure is told either way."""
    folder = tmp_path / "tests" / "cli"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(test.format(file=str(tmp_path / "file")))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "tests.again", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(folder)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert (run.returncode, said in run.stdout) == (code, True), run.stdout + run.stderr
    assert "test_one - " in run.stdout
