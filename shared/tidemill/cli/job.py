"""A command whose work a process of its own does."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from tidemill.tied import PARENT


def run_job(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run it to its end, and return its exit code (minus the signal that ended it). It ends when this process does; Ctrl-C is for it alone,
    so that it may say what it leaves."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with subprocess.Popen(command, env={**environment, PARENT: str(os.getpid())}) as process:
            return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
