"""A command whose work a process of its own does: what ends the one ends the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.gone import wait_gone
from tests.patience import PATIENCE_SECONDS

JOB = """
import sys, time
from tidemill.tied import tie_as_told
tie_as_told()
try:
    print("working", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("kept", flush=True)
    sys.exit(130)
"""
COMMAND = """
import os, sys
from tidemill.cli.job import run_job
sys.exit(run_job([sys.executable, sys.argv[1]], os.environ))
"""


@pytest.fixture
def running(tmp_path: Path) -> subprocess.Popen[str]:
    """A command whose job works, in a process group of its own, as a shell starts it."""
    job = tmp_path / "job.py"
    job.write_text(JOB)
    command = [sys.executable, "-c", COMMAND, str(job)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.slow
def test_a_killed_command_ends_its_job(running: subprocess.Popen[str]) -> None:
    """Nothing goes on without the command that the user sees, not even after `kill -9`."""
    (job,) = psutil.Process(running.pid).children()
    running.kill()
    running.communicate()
    wait_gone(job.pid)


@pytest.mark.slow
def test_ctrl_c_is_for_the_job(running: subprocess.Popen[str]) -> None:
    """The job says what it leaves, and its exit code is the command's."""
    os.killpg(running.pid, signal.SIGINT)
    said, _ = running.communicate(timeout=PATIENCE_SECONDS)
    assert (said, running.returncode) == ("kept\n", 130)
