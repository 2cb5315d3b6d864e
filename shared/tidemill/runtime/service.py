"""Running a service: its workers and its HTTP answers in one loop, under one watchdog, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.errors import WorkerEnded
from tidemill.runtime.door import Check, door
from tidemill.runtime.encodings import unpacked
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.http import HttpServer
from tidemill.runtime.settings import HttpSettings, ServiceSettings, WatchdogSettings
from tidemill.runtime.watchdog import Pulse, Watchdog

__all__ = ["Pulse", "Service", "cancelled", "run_together", "run_workers"]

Work = Coroutine[Any, Any, Any]


@dataclass(frozen=True)
class Service:
    """The parts of a service, wired and not yet running. Each service's `app.build` makes one from its settings.

    `app`: the ASGI application that answers; `work`: runs the workers, for ever; `pulses`: their signs of life; `check`: see
    `runtime.door`.
    """

    settings: ServiceSettings
    board: HealthBoard
    app: Any
    work: Callable[[], Work]
    pulses: Sequence[Pulse] = ()
    check: Check | None = None

    async def run(self) -> None:
        """Answer and work until SIGINT or SIGTERM. Raises the error that ends the work, and SettingsError when it cannot listen."""
        app = door(unpacked(self.app), self.check)
        await run_workers(app, self.settings.http, self.work(), self.pulses, self.board, self.settings.watchdog)


async def run_workers(
    app: Any, http: HttpSettings, work: Work, pulses: Sequence[Pulse], board: HealthBoard, watchdog: WatchdogSettings | None = None
) -> None:
    """Serve `app` and do the work until SIGINT or SIGTERM; then finish requests in progress, and cancel the work.

    Work that ends earlier ends the service: this raises the error of the work, or WorkerEnded. When a pulse, or that of the loop, stays
    away for too long, the process logs its stacks and ends; its supervisor starts it again.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Watchdog(pulses, board, watchdog):
        working, stopped = asyncio.create_task(work, name="work"), asyncio.create_task(stop.wait())
        try:
            async with HttpServer(app, http):
                await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked = stopped.done()
            await cancelled(working, stopped)
    if not working.cancelled():
        working.result()
    if not asked:
        raise WorkerEnded("the work of this service")


async def run_together(*workers: Work) -> None:
    """Run workers that should run for ever. When one ends, all are cancelled; then this raises its error, or WorkerEnded with its name.

    A worker that ends in CancelledError counts too: Kafka's client may raise it within a call, and a TaskGroup would ignore it.
    """
    tasks = [asyncio.create_task(worker, name=getattr(worker, "__qualname__", "worker")) for worker in workers]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancelled(*tasks)
    for task in ended:
        if not task.cancelled():
            task.result()
    raise WorkerEnded(ended.pop().get_name())


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancels tasks and waits until they have ended; their errors are theirs."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
