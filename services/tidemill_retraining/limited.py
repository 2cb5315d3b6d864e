"""Turns itself into a command with limits: python -m tidemill_retraining.limited MEGABYTES NICE COMMAND...

The command ends with the process that started it (on Linux whatever it is, elsewhere if it is tidemill's own), is nicer by NICE, and may ask for so much memory;
0 means no limit. It is told by an error of its own when it has no more, or by the system's SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys

from tidemill.tied import tie


def main(megabytes: str, nice: str, *command: str) -> None:
    """Set the limits, and become the command."""
    if sys.platform.startswith("linux"):  # the kernel remembers it for what this becomes
        tie(os.getppid())
    os.nice(int(nice))
    if most := int(megabytes) * 1_048_576:
        with contextlib.suppress(ValueError, OSError):  # a harder limit holds already
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
