"""Processes that end by themselves: a kill is answered before its process is gone, and the process of a killed parent ends a moment later."""

from __future__ import annotations

import time

from tests.patience import PATIENCE_SECONDS

from tidemill.local.processes import alive


def wait_gone(pid: int) -> None:
    """Wait until no process of this pid runs. One that is dead but that nobody waits for does not run. Raises AssertionError if it goes on."""
    end = time.monotonic() + PATIENCE_SECONDS
    while alive(pid):
        assert time.monotonic() < end, f"process {pid} goes on"
        time.sleep(0.02)
