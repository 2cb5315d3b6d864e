"""A process of the stack ends when its parent does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.local.observe import alive, left_after
from tests.patience import PATIENCE_SECONDS

from tidemill.local import processes
from tidemill.local.supervisor import CHILD, child_command

pytestmark = pytest.mark.integration
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# Stands for the parent: starts one child by the command it is given and stays.
PARENT = "import os, subprocess, sys, time; os.environ['TIDEMILL_SUPERVISOR_PID'] = str(os.getpid()); subprocess.Popen(sys.argv[1:]); time.sleep(600)"
# On a system without Linux' calls the same file polls instead.
ELSEWHERE = f"import runpy, sys; sys.platform = 'darwin'; sys.argv[0] = {CHILD!r}; runpy.run_path({CHILD!r}, run_name='__main__')"


def wait_for(home: Path, name: str) -> psutil.Process:
    """Return the process once it has become its command."""
    deadline = time.monotonic() + 180
    while (process := processes.running(home, name)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process is not None
    return process


@pytest.mark.parametrize("system", ["this", "elsewhere"])
def test_a_child_ends_when_its_parent_is_killed(home: Path, system: str) -> None:
    """Kill -9 of the parent ends the child, by the kernel's signal or by the watcher."""
    command = child_command("one", "supervisor", SLEEP)
    if system == "elsewhere":
        command = [sys.executable, "-c", ELSEWHERE, "one", "supervisor", "0", *SLEEP]
    with subprocess.Popen([sys.executable, "-c", PARENT, *command], env={**os.environ, "TIDEMILL_HOME": str(home)}) as parent:
        wait_for(home, "one")
        parent.kill()
    assert left_after(home) == []


def test_a_watched_parent_may_stay_unreaped(home: Path) -> None:
    """A parent that is dead but not yet waited for counts as dead."""
    with subprocess.Popen(SLEEP) as watched:
        with subprocess.Popen(child_command("one", str(watched.pid), SLEEP), env={**os.environ, "TIDEMILL_HOME": str(home)}) as child:
            wait_for(home, "one")
            watched.kill()
            assert child.wait(PATIENCE_SECONDS) == -signal.SIGTERM
        assert psutil.Process(watched.pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_whose_parent_is_gone_already_does_not_start(home: Path) -> None:
    """The parent may die before the child can tie itself to it: the child then says so and ends."""
    environment = {**os.environ, "TIDEMILL_HOME": str(home), "TIDEMILL_SUPERVISOR_PID": "999999999"}
    done = subprocess.run(
        child_command("one", "supervisor", SLEEP), env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 1
    assert "ended before this process could start" in done.stderr


def test_stop_ends_a_process_that_ignores_the_signal(home: Path) -> None:
    """A leftover that does not end on SIGTERM is killed."""
    stubborn = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)",
    ]
    with subprocess.Popen(
        child_command("one", "none", stubborn), env={**os.environ, "TIDEMILL_HOME": str(home)}, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith(b'{"event": "process starts"')
        child.stdout.readline()
        assert processes.stop(home, "one", timeout_seconds=0.2)
        assert alive(home) == []
