"""A dead man's switch for a worker: whoever does not report for too long is stuck, shows where, and is restarted by its supervisor."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading

from tidemill.logs import get_logger

log = get_logger(__name__)

EXIT_STUCK = 70


class Watchdog:
    """Ends the process with the stacks of all threads in its log unless `beat` is called at least every `patience_seconds`.

    It lives in a thread of its own, so that a blocked event loop is noticed too. Seconds are counted while the process runs:
    one that was stopped and continued is not taken for stuck.
    """

    def __init__(self, patience_seconds: int) -> None:
        self._patience_seconds = patience_seconds
        self._silent_seconds = 0
        self._closed = threading.Event()

    def start(self) -> None:
        """Begin to count, inside the loop whose tasks are to be shown."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._count, name="watchdog", daemon=True).start()

    def beat(self) -> None:
        """Report progress, or that there is nothing to do."""
        self._silent_seconds = 0

    def stop(self) -> None:
        """Stop counting."""
        self._closed.set()

    def _count(self) -> None:
        while not self._closed.wait(1):
            self._silent_seconds += 1
            if self._silent_seconds > self._patience_seconds:
                log.error("no progress: ending the process", seconds=self._silent_seconds, mend="the stacks below show where it is stuck")
                self._dump()
                os._exit(EXIT_STUCK)

    def _dump(self) -> None:
        out = sys.__stderr__ or sys.stderr
        faulthandler.dump_traceback(out, all_threads=True)
        for task in asyncio.all_tasks(self._loop):
            task.print_stack(file=out)
        out.flush()
