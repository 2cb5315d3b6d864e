"""A TCP proxy between clients and one server, in a thread of its own, whose connections can be cut, silenced, slowed and robbed of replies.

    with Proxy() as proxy:                  # it has its address at once
        proxy.lead_to("127.0.0.1", 6379)    # and a server as soon as there is one; until then it takes no connection further
        proxy.cut()

Every method may be called from any thread and has taken effect when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from tests.patience import PATIENCE_SECONDS

T = TypeVar("T")
HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16
TURN_SECONDS = 0.1


class Proxy:
    """Forwards what comes, in both directions, until told otherwise."""

    def __init__(self) -> None:
        self._socket = socket.create_server((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        self._upstream: tuple[str, int] | None = None
        self._pairs: set[_Pair] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._latency_seconds = 0.0
        self._bytes_per_second = 0.0  # 0: no limit
        self._robs: Callable[[bytes], bool] = bool
        self._to_rob = 0
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)
        self._started = threading.Event()

    @property
    def address(self) -> str:
        """host:port, for clients."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._call(self._ended.set)
        self._thread.join()

    def lead_to(self, host: str, port: int) -> None:
        """Take another server; connections to the one before are cut."""

        def change() -> None:
            self._upstream = host, port
            self._cut()

        self._call(change)

    def cut(self) -> int:
        """Break every connection, as a reset does. Returns how many there were."""
        return self._call(self._cut)

    def refuse(self, refusing: bool = True) -> None:
        """Cut every connection and each new one, until told otherwise."""

        def change() -> None:
            self._refusing = refusing
            if refusing:
                self._cut()

        self._call(change)

    def silence(self, silent: bool = True) -> None:
        """Half-open: swallow nothing, forward nothing, close nothing. When it ends, what was held back is lost: the connections are cut."""

        def change() -> None:
            if silent:
                self._open.clear()
            else:
                self._cut()
                self._open.set()

        self._call(change)

    def slow(self, latency_seconds: float = 0.0, bytes_per_second: float = 0.0) -> None:
        """Hold each chunk back for so long, and pass no more than that in a second. Zeros end it."""

        def change() -> None:
            self._latency_seconds, self._bytes_per_second = latency_seconds, bytes_per_second

        self._call(change)

    def rob(self, wanted: Callable[[bytes], bool], replies: int) -> None:
        """Of the next requests (chunks of bytes) that are `wanted`: let each be carried out, but cut its connection instead of giving the reply."""

        def change() -> None:
            self._robs, self._to_rob = wanted, replies

        self._call(change)

    @property
    def to_rob(self) -> int:
        """How many replies are still to be lost."""
        return self._to_rob

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._pairs)

    def _call(self, change: Callable[[], T]) -> T:
        async def run() -> T:
            return change()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE_SECONDS)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._socket)
        self._started.set()
        await self._ended.wait()
        server.close()
        self._cut()
        while self._pairs:
            await asyncio.sleep(0.01)

    def _cut(self) -> int:
        for pair in self._pairs:
            pair.cut()
        return len(self._pairs)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(self, writer)
        self._pairs.add(pair)
        try:
            if self._refusing or self._upstream is None:
                return
            await pair.forward(reader, *self._upstream)
        except OSError:
            pass  # either side is gone, and so will be the other
        finally:
            pair.cut()
            self._pairs.discard(pair)

    def robs(self, data: bytes) -> bool:
        """Whether the reply to this request is one to be lost; it counts as lost then."""
        robbed = self._to_rob > 0 and self._robs(data)
        self._to_rob -= robbed
        return robbed

    async def pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write a chunk, when and as fast as it may pass."""
        if self._latency_seconds:
            await asyncio.sleep(self._latency_seconds)
        done = 0
        while done < len(data):
            await self._open.wait()
            size = len(data)
            if self._bytes_per_second:
                await asyncio.sleep(TURN_SECONDS)
                size = max(1, int(self._bytes_per_second * TURN_SECONDS))
            writer.write(data[done : done + size])
            await writer.drain()
            done += size


class _Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writers = [client]
        self._robbed = False
        self._tasks: list[asyncio.Task[None]] = []

    async def forward(self, reader: asyncio.StreamReader, host: str, port: int) -> None:
        answers, server = await asyncio.open_connection(host, port)
        client = self._writers[0]
        self._writers.append(server)
        self._tasks = [asyncio.create_task(self._up(reader, server)), asyncio.create_task(self._down(answers, client))]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _up(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            self._robbed = self._robbed or self._proxy.robs(data)
            await self._proxy.pass_on(data, server)

    async def _down(self, answers: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await answers.read(CHUNK_BYTES):
            if self._robbed:
                return
            await self._proxy.pass_on(data, client)

    def cut(self) -> None:
        """Reset both connections; nothing that waits in them arrives any more."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                writer.transport.abort()
