"""Running a stream service: its workers and its HTTP answers in one loop, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from tidemill.http import HttpServer
from tidemill.settings import HttpSettings


async def run_workers(app: Any, http: HttpSettings, *workers: Coroutine[Any, Any, None]) -> None:
    """Serve `app` and run the workers until SIGINT or SIGTERM, then cancel them. An exception of a worker ends the others and is raised."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with HttpServer(app, http):
        tasks = [asyncio.create_task(worker) for worker in workers]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, stopped):
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    for result in ended:
        if isinstance(result, Exception):
            raise result
