"""A process that is tied to its parent."""

from __future__ import annotations

import subprocess
import sys

TIED = "import os, sys; from tidemill.tied import tie; tie(int(sys.argv[1]) or os.getppid()); print('alive')"


def run(parent: int) -> subprocess.CompletedProcess[str]:
    """A process that ties itself to the process with this pid; 0: its parent."""
    return subprocess.run([sys.executable, "-c", TIED, str(parent)], capture_output=True, text=True, check=False)


def test_goes_on_while_its_parent_does() -> None:
    """It is not ended at once."""
    assert (run(0).returncode, run(0).stdout) == (0, "alive\n")


def test_ends_if_its_parent_has_ended_already() -> None:
    """No signal comes then, so it looks once."""
    assert (run(1).returncode, run(1).stdout) == (1, "")
