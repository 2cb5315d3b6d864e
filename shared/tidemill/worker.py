"""Running a stream service: its workers and its HTTP answers in one loop, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from tidemill.http import HttpServer
from tidemill.settings import HttpSettings
from tidemill.watchdog import Watchdog

PATIENCE_SECONDS = 120


class Pulse:
    """The last sign of life of a worker: a turn of its loop that ended, well or with an error that was told."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        """Give a sign of life."""
        self._at = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """How long ago the last one was."""
        return time.monotonic() - self._at


async def run_workers(app: Any, http: HttpSettings, work: Coroutine[Any, Any, None], pulses: Sequence[Pulse]) -> None:
    """Serve `app` and do the work until SIGINT or SIGTERM, then cancel it. What the work raises ends the service and is raised.

    When a pulse stays away for two minutes the process ends with its stacks in the log: its supervisor starts it anew.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with HttpServer(app, http):
        watch = asyncio.create_task(_watch(pulses))
        working = asyncio.create_task(work)
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, stopped, watch):
                task.cancel()
            ended = await asyncio.gather(working, stopped, watch, return_exceptions=True)
    if isinstance(ended[0], Exception):
        raise ended[0]


async def _watch(pulses: Sequence[Pulse]) -> None:
    watchdog = Watchdog(PATIENCE_SECONDS)
    watchdog.start()
    try:
        while True:
            if all(pulse.silent_seconds < PATIENCE_SECONDS for pulse in pulses):
                watchdog.beat()
            await asyncio.sleep(1)
    finally:
        watchdog.stop()
