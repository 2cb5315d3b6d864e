"""A dead man's switch: a process one of whose workers gives no sign of life for too long shows where it is stuck and ends itself.

    pulse = Pulse("mirror of requests")
    async with Watchdog([pulse], board):      # one per process, see tidemill.runtime.service
        ...
        pulse.beat()                          # one turn of a loop has ended, well or with an error that was reported

Its supervisor starts the process again. A worker beats when it has made progress, when there is nothing to do, or when the health board
says what it waits for. The event loop has a pulse too, so a service without workers is watched in the same way.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Sequence
from typing import Self

from tidemill.runtime import exits
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import WatchdogSettings

log = get_logger(__name__)

EXIT_STUCK = 70
DUMP_SECONDS = 10.0  # to write the stacks: a disk or a pipe that hangs must not delay the end


class Pulse:
    """The signs of life of one worker. Any thread may give them."""

    def __init__(self, name: str = "worker") -> None:
        self.name = name
        self.silent_seconds = 0
        self._beaten = False

    def beat(self) -> None:
        """Give a sign of life."""
        self._beaten = True

    def tick(self) -> None:
        """Let a second pass."""
        self.silent_seconds = 0 if self._beaten else self.silent_seconds + 1
        self._beaten = False


class Watchdog:
    """When a pulse stays away for too long, logs the stacks of all threads and tasks and ends the process.

    `pulses`: a list that may change while it runs. It counts in a thread of its own, so it notices a blocked event loop. It counts only while the process runs: a process that was stopped
    and continued does not count as stuck. After a quarter of the patience the check `progress` of the board names the silent workers.
    """

    def __init__(self, pulses: Sequence[Pulse], board: HealthBoard, settings: WatchdogSettings | None = None) -> None:
        self._loop_pulse = Pulse("event loop")
        self._workers = pulses
        self._board = board
        self._patience_seconds = (settings or WatchdogSettings.load()).patience_seconds
        self._closed = threading.Event()

    @property
    def _pulses(self) -> list[Pulse]:
        return [*self._workers, self._loop_pulse]

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._reporting = asyncio.create_task(self._report(), name="heartbeat")
        threading.Thread(target=self._count, name="watchdog", daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed.set()
        self._reporting.cancel()

    async def _report(self) -> None:
        while True:
            self._loop_pulse.beat()
            silent = [pulse for pulse in self._pulses if pulse.silent_seconds > self._patience_seconds / 4]
            end = f"; the process ends after {self._patience_seconds} s"
            text = ", ".join(f"no sign of life of the {pulse.name} for {pulse.silent_seconds} s" for pulse in silent)
            self._board.report("progress", text + end if silent else None)
            await asyncio.sleep(1)

    def _count(self) -> None:
        while not self._closed.wait(1):
            for pulse in self._pulses:
                pulse.tick()
            if any(pulse.silent_seconds > self._patience_seconds for pulse in self._pulses):
                self._end()

    def _end(self) -> None:
        threading.Timer(DUMP_SECONDS, os._exit, [EXIT_STUCK]).start()
        try:
            silence = {pulse.name: pulse.silent_seconds for pulse in self._pulses}
            log.error("no progress: ending the process", silent_seconds=silence, mend="the stacks below show where it is stuck")
            self._dump()
            exits.end("stuck")
        finally:
            os._exit(EXIT_STUCK)

    def _dump(self) -> None:
        out = sys.__stderr__ or sys.stderr
        faulthandler.dump_traceback(out, all_threads=True)
        for task in asyncio.all_tasks(self._loop):
            task.print_stack(file=out)
        out.flush()
