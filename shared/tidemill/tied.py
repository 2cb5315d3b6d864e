"""A process that ends when another one does, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "TIDEMILL_PARENT"
"""The pid of the command that a process is a part of."""
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.5


def tie(parent: int) -> None:
    """End this process, at once and without a word, when its parent has ended. On Linux the kernel does it, whatever this process is busy with.

    The kernel looks at the *thread* that started this process.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def tie_as_told() -> None:
    """`tie` to the command that started this process as a part of itself, if one did."""
    if told := os.environ.pop(PARENT, None):
        tie(int(told))


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
