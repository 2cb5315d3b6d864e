"""What goes on beside a test: the work of a service or a server of one's own in the test's own loop, or actions in threads."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
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


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server in the test's own loop; gives its port. At the end it has no connection: one that is left open warns in whichever test is running
    when it is collected, and warnings are errors."""
    connections = dict[asyncio.StreamWriter, asyncio.Future[None]]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[writer] = asyncio.ensure_future(handle(reader, writer))
        await asyncio.wait({connections[writer]})

    server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await _turns()  # for those that have not come so far
        for writer, task in connections.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*connections.values(), return_exceptions=True)
        await _turns()


async def _turns() -> None:
    """Let the loop look at its sockets again and again: a handshake of TLS takes some turns to fail, and a closed connection one to go."""
    for _ in range(10):
        await asyncio.sleep(0)


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
