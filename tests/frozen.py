"""A process that stands still: `kill` only announces the signal, and the process may run on for some milliseconds."""

import os
import signal
import time

import psutil


def freeze(pid: int) -> None:
    """Stop a process with SIGSTOP; returns once it stands still."""
    os.kill(pid, signal.SIGSTOP)
    process = psutil.Process(pid)
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)
