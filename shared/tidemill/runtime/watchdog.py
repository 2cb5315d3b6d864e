"""A dead man's switch for a process: whoever gives no sign of life for too long is stuck, shows where, and is restarted by its supervisor.

    pulse = Pulse("mirror of requests")
    async with Watchdog([pulse], board):      # one per process, see tidemill.runtime.service
        ...
        pulse.beat()                          # a turn of a loop that ended, well or with an error that was told

A worker beats when it has made progress, when there is nothing to do, or when it has said on the health board what it waits for. The event
loop itself has a pulse too, so that a service of HTTP answers alone is watched the same way.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Sequence
from typing import Self

from pydantic import Field

from tidemill.runtime import exits
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import Settings

log = get_logger(__name__)

EXIT_STUCK = 70
DUMP_SECONDS = 10.0  # to write the stacks down: a disk or a pipe that takes nothing must not hold up the end


class WatchdogSettings(Settings):
    """When a process is taken for stuck."""

    patience_seconds: int = Field(
        120,
        validation_alias="TIDEMILL_PATIENCE_SECONDS",
        ge=2,
        description="after how many seconds without a sign of life of one of its workers a process ends itself to be restarted",
    )


class Pulse:
    """The signs of life of one worker, given from any thread."""

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
    """Ends the process with the stacks of all threads and tasks in its log when one of the pulses stays away.

    It counts in a thread of its own, so that a blocked event loop is noticed, and only while the process runs: one that was stopped and
    continued is not taken for stuck. After a quarter of the patience the board's check `progress` says who is silent.
    """

    def __init__(self, pulses: Sequence[Pulse], board: HealthBoard, settings: WatchdogSettings | None = None) -> None:
        self._loop_pulse = Pulse("event loop")
        self._pulses = [*pulses, self._loop_pulse]
        self._board = board
        self._patience_seconds = (settings or WatchdogSettings.load()).patience_seconds
        self._closed = threading.Event()

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
