"""The Redis client of the request path: one connection that all callers share; it pipelines their commands by itself.

    async with RedisLink(settings.url, timeout_seconds=0.25) as link:
        values = await link.call(b"MGET", fence_key, entity_key)
        applied = await link.script(LUA, [fence_key, entity_key], [expected, value])

Any number of tasks may call at once. Replies come back in order, so each caller is a future in a queue. All calls within one turn of the
loop leave in one write. Needs the extra `store` (hiredis). One link belongs to one event loop. It speaks to one node (or a proxy);
`tidemill.redis.cluster` speaks to a cluster, with one link to each node.

While Redis is away every call fails at once with StoreUnavailable, and the link reconnects in the background; no call waits without limit.
A call that fails in this way may or may not have been applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Self, cast

from tidemill.errors import MissingExtra, NoScript, StoreError, StoreUnavailable
from tidemill.redis.address import RedisAddress
from tidemill.redis.protocol import Arg
from tidemill.redis.replies import Demoted, reply_error
from tidemill.runtime.logs import get_logger

try:
    import hiredis
except ImportError as error:
    raise MissingExtra("hiredis", "store") from error

log = get_logger(__name__)

TICKS = 4  # a time-out is noticed within 1/TICKS of its length
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 1.0

_SCAN_COUNT = b"2000"


class _Connection(asyncio.Protocol):
    """One TCP, TLS or Unix connection. Futures wait in the order of their commands. A future that is done early (timed out, or cancelled by
    its caller) keeps its place until its reply has come and is dropped: so every reply goes to its own command."""

    def __init__(self, timeout_seconds: float, on_drop: Callable[[_Connection, StoreUnavailable], None]) -> None:
        self._on_drop = on_drop
        self._loop = asyncio.get_running_loop()
        self._tick_seconds = timeout_seconds / TICKS
        self._timeout_seconds = timeout_seconds
        self._reader = hiredis.Reader(replyError=reply_error)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._received = 0
        self._marks: deque[tuple[int, int]] = deque(maxlen=TICKS + 1)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self.lost: asyncio.Future[StoreUnavailable] = self._loop.create_future()

    def call(self, args: tuple[Arg, ...]) -> asyncio.Future[Any]:
        packed = hiredis.pack_command(args)  # type: ignore[arg-type]  # its type stub has one argument only
        future = self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self._waiting.append(future)
        return future

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.lost.done():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._tick()

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        before = len(waiting)
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                future = waiting.popleft()
                if not future.done():
                    if isinstance(reply, Exception):
                        self._fail(future, reply)
                    else:
                        future.set_result(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.drop(f"Redis sent an invalid reply: {error}")
        self._received += before - len(waiting)

    def _fail(self, future: asyncio.Future[Any], error: Exception) -> None:
        future.set_exception(error)
        if isinstance(error, Demoted):
            self.drop(error.message)

    def _tick(self) -> None:
        """Look at the clock TICKS times per time-out: a command sent before the oldest mark and without a reply is overdue.

        When no reply at all has come since that mark, the connection is dropped.
        """
        self._marks.append((self._received + len(self._waiting), self._received))
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)
        sent_then, received_then = self._marks[0]
        overdue = sent_then - self._received
        if len(self._marks) <= TICKS or overdue <= 0:
            return
        text = f"Redis did not answer within {self._timeout_seconds:g} s"
        for future in islice(self._waiting, overdue):
            if not future.done():
                future.set_exception(StoreUnavailable(text, mend="retry; look at the server's load and slow log"))
        if self._received == received_then:
            self.drop(text)

    def connection_lost(self, error: Exception | None) -> None:
        self.drop(f"the connection to Redis was lost{f': {error}' if error else ''}")

    def drop(self, reason: str) -> None:
        """Close the connection, and fail every call that waits."""
        if self.lost.done():
            return
        lost = StoreUnavailable(reason, mend="the link reconnects by itself; retry")
        self._on_drop(self, lost)
        self.lost.set_result(lost)
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        for future in self._waiting:
            if not future.done():
                future.set_exception(StoreUnavailable(reason, mend="retry"))


class RedisLink:
    """A connection that reconnects by itself. `timeout_seconds` holds for each call (noticed up to a quarter late) and for connecting.

    `on_change` is called with None when the link is up and with the reason when it is down, for a health board.
    """

    def __init__(
        self, url: str | RedisAddress, timeout_seconds: float = 1.0, on_change: Callable[[str | None], None] | None = None
    ) -> None:
        self.address = RedisAddress.parse(url) if isinstance(url, str) else url
        self._timeout_seconds = timeout_seconds
        self._on_change = on_change or (lambda _reason: None)
        self._connection: _Connection | None = None
        self._down = StoreUnavailable("not connected to Redis yet", mend="start the link and wait")
        self._logged_reason = ""
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    def open(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._task = self._task or asyncio.create_task(self._stay_connected(), name="redis-link")

    async def start(self) -> None:
        """Connect in the background and wait for the connection, one time-out at most. Does not raise when Redis is away."""
        self.open()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                await self._up.wait()

    async def close(self) -> None:
        """Close the connection. Calls that wait, and all later ones, fail with StoreUnavailable."""
        self._down = StoreUnavailable("the link to Redis is closed", mend="open another")
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether a call would be sent now."""
        return self._connection is not None

    def call(self, *args: Arg) -> asyncio.Future[Any]:
        """Send one command; awaiting the result gives its reply (bytes, int, None or lists of them).

        Raises StoreUnavailable when Redis is away or late (at once when the link knows that it is away), StoreError when it answers with an
        error. Errors inside a list, as in the reply of a transaction, stay in the list. Do not use commands that block or subscribe.
        """
        connection = self._connection
        if connection is None:
            raise StoreUnavailable(self._down.message, mend=self._down.mend)
        return connection.call(args)

    async def script(self, lua: str, keys: Sequence[Arg], args: Sequence[Arg]) -> Any:
        """Run a Lua script by its digest; its text is sent only when the server does not hold it. Raises as `call` does."""
        try:
            return await self.call(b"EVALSHA", script_digest(lua), len(keys), *keys, *args)
        except NoScript:
            return await self.call(b"EVAL", lua, len(keys), *keys, *args)

    def mget(self, keys: Iterable[Arg]) -> Awaitable[list[bytes | None]]:
        """The values of keys, all at one moment. Raises as `call` does."""
        return self.call(b"MGET", *keys)

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """The keys that match, in portions. A key that exists all the time comes at least once. Raises as `call` does."""
        cursor = b"0"
        while True:
            cursor, keys = await self.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN_COUNT)
            yield keys
            if cursor == b"0":
                return

    async def everywhere(self, *args: Arg) -> list[Any]:
        """The replies of all servers to a command without a key; here there is one server. Raises as `call` does."""
        return [await self.call(*args)]

    def _forget(self, connection: _Connection, lost: StoreUnavailable) -> None:
        """From now on no call uses a dropped connection, not even within the same turn of the loop."""
        if self._connection is connection:
            self._connection, self._down = None, lost

    async def _stay_connected(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        try:
            while True:
                try:
                    fresh = await self._connect()
                except (StoreUnavailable, StoreError) as error:
                    self._is_down(error)
                else:
                    pause = FIRST_PAUSE_SECONDS
                    self._is_up(fresh)
                    self._is_down(await asyncio.shield(fresh.lost))
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        finally:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.drop(self._down.message)

    def _is_up(self, connection: _Connection) -> None:
        if not connection.lost.done():
            self._connection = connection
        self._logged_reason = ""
        self._up.set()
        self._on_change(None)
        log.info("connected to Redis", address=str(self.address))

    def _is_down(self, error: StoreUnavailable | StoreError) -> None:
        self._up.clear()
        if error.message != self._logged_reason:
            self._logged_reason = error.message
            log.warning("no connection to Redis", address=str(self.address), reason=error.message, mend=error.mend)
        self._down = StoreUnavailable(error.message, mend=error.mend)
        self._on_change(error.message)

    async def _connect(self) -> _Connection:
        """Open a connection and check that it serves: log in, choose the database, and send a PING, which a loading server refuses."""
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = await self.address.connect(lambda: _Connection(self._timeout_seconds, self._forget))
                for command in (*self.address.greeting(), (b"PING",)):
                    await connection.call(command)
        except (OSError, TimeoutError, ValueError) as error:  # ValueError: not a valid host name
            reason = f"no answer within {self._timeout_seconds:g} s" if isinstance(error, TimeoutError) else str(error)
            failure = StoreUnavailable(f"cannot reach Redis at {self.address}: {reason}", mend="start it, or correct REDIS_URL")
            if connection is not None:
                connection.drop(failure.message)
            raise failure from error
        except BaseException:
            if connection is not None:
                connection.drop("the connection to Redis was not accepted")
            raise
        return connection


@lru_cache(maxsize=256)
def script_digest(lua: str) -> bytes:
    """The digest by which a server knows a script that it holds."""
    return hashlib.sha1(lua.encode(), usedforsecurity=False).hexdigest().encode()
