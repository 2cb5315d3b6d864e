"""Turns itself into a command with limits: python -m tidemill_retraining.limited MEGABYTES NICE COMMAND...

The command ends with the process that started it, is nicer by NICE, and may ask for so much memory; 0 means no limit. It is told by an error
of its own when it has no more, or by the system's SIGKILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(megabytes: str, nice: str, *command: str) -> None:
    """Set the limits, and become the command."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.nice(int(nice))
    if most := int(megabytes) * 1_048_576:
        with contextlib.suppress(ValueError, OSError):  # a harder limit holds already
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
