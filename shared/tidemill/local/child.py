"""Turns itself into one process of the local stack, so that the process ends when its parent does.

    python child.py NAME TIE NICE COMMAND...

It writes its pid to ``$TIDEMILL_HOME/run/NAME.pid``, sets ``TIDEMILL_PROCESS`` to ``HOME:NAME`` (by which `processes.running`
knows the process again), ties itself to its parent, adds NICE to its niceness and then *becomes* COMMAND. TIE is ``none``, ``supervisor``
(the process whose pid is in ``TIDEMILL_SUPERVISOR_PID``; a single thread there starts all children) or a pid to be watched.
Only the standard library is used and it is run by path, because it must start in a few milliseconds.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.2


def main(name: str, tie: str, nice: str, *command: str) -> None:
    """Write the pid file, tie this process to its parent, set its niceness, and exec the command."""
    home = os.environ["TIDEMILL_HOME"]
    with open(os.path.join(home, "run", f"{name}.pid"), "w") as file:
        file.write(str(os.getpid()))
    if tie == "supervisor":
        tie_to_supervisor(int(os.environ["TIDEMILL_SUPERVISOR_PID"]))
    elif tie != "none":
        watch(int(tie), os.getpid())
    os.nice(int(nice))
    if name == "supervisor":
        os.environ["TIDEMILL_SUPERVISOR_PID"] = str(os.getpid())
    os.environ["TIDEMILL_PROCESS"] = f"{home}:{name}"
    print(json.dumps({"event": "process starts", "process": name, "pid": os.getpid()}), flush=True)
    os.execvp(command[0], command)  # noqa: S606


def tie_to_supervisor(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent ends; where there is no such call, leave a watcher.

    The kernel sends it when the *thread* that started us ends, so this is right only for a single-threaded parent.
    If the parent ended before the call, no signal comes: hence the check after it.
    """
    if not sys.platform.startswith("linux"):
        watch(parent, os.getpid())
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(f"the supervisor (pid {parent}) ended before this process could start")


def watch(parent: int, target: int) -> None:
    """Start a watcher, no child of ours, that sends SIGTERM to the target once the parent is gone."""
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return
    os.setsid()
    if os.fork() == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        wait_for_any([parent, target])
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGTERM)
    os._exit(0)


def wait_for_any(pids: list[int]) -> None:
    """Return once one of the processes has ended, reaped or not."""
    with contextlib.suppress(ProcessLookupError):
        if sys.platform.startswith("linux"):
            select.select([os.pidfd_open(pid) for pid in pids], [], [])
            return
        while True:
            for pid in pids:
                os.kill(pid, 0)
            time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
