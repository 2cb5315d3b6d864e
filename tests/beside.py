"""What goes on beside a test: the work of a service in the test's own loop, or actions in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run it until the end of the block. What it raised before is raised."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        ended = task.done()
        task.cancel()
        await asyncio.wait({task})
    if ended:
        task.result()


@contextmanager
def repeated(*actions: tuple[Callable[[threading.Event], object], float]) -> Iterator[None]:
    """Do each action over and over in a thread of its own, with a pause of so many seconds before it, until the end of the block. An action gets
    the event that says so. What one raised is raised."""
    stop, failed = threading.Event(), list[BaseException]()

    def act(action: Callable[[threading.Event], object], pause_seconds: float) -> None:
        try:
            while not stop.wait(pause_seconds):
                action(stop)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=act, args=pair) for pair in actions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for error in failed:
        raise error
