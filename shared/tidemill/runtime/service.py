"""Running a service: its workers and its HTTP answers in one loop, under one watchdog, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Sequence
from typing import Any

from tidemill.errors import WorkerEnded
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.http import HttpServer
from tidemill.runtime.settings import HttpSettings
from tidemill.runtime.watchdog import Pulse, Watchdog

__all__ = ["Pulse", "run_together", "run_workers"]

Work = Coroutine[Any, Any, Any]


async def run_workers(app: Any, http: HttpSettings, work: Work, pulses: Sequence[Pulse], board: HealthBoard) -> None:
    """Serve `app` and do the work until SIGINT or SIGTERM; then finish requests in progress, and cancel the work.

    Work that ends before that, however it ends, ends the service: what it raised is raised, or WorkerEnded. When a pulse, or the loop's own,
    stays away for too long the process ends with its stacks in the log: its supervisor starts it anew.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Watchdog(pulses, board):
        working, stopped = asyncio.create_task(work, name="work"), asyncio.create_task(stop.wait())
        try:
            async with HttpServer(app, http):
                await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked = stopped.done()
            await _cancelled(working, stopped)
    if not working.cancelled():
        working.result()
    if not asked:
        raise WorkerEnded("the work of this service")


async def run_together(*workers: Work) -> None:
    """Run workers that are there to run for ever. The first that ends ends all: what it raised is raised, or WorkerEnded with its name.

    Also one that was cancelled from within: Kafka's client may end a call in CancelledError, which a TaskGroup would pass over.
    """
    tasks = [asyncio.create_task(worker, name=getattr(worker, "__qualname__", "worker")) for worker in workers]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancelled(*tasks)
    for task in ended:
        if not task.cancelled():
            task.result()
    raise WorkerEnded(ended.pop().get_name())


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
