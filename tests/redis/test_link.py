"""The Redis link against a server that misbehaves on purpose: replies cut anywhere, lost half-way, late, or never."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.beside import listening

from tidemill.errors import NoScript, StoreError, StoreUnavailable
from tidemill.redis.link import RedisLink

Answer = Callable[[list[bytes], asyncio.StreamWriter], Awaitable[None]]


async def echo(command: list[bytes], writer: asyncio.StreamWriter) -> None:
    """Answer ECHO with its argument, anything else with OK."""
    writer.write(b"$%d\r\n%s\r\n" % (len(command[1]), command[1]) if command[0] == b"ECHO" else b"+OK\r\n")


@asynccontextmanager
async def server(answer: Answer, port: int = 0) -> AsyncIterator[int]:
    """Run a RESP server that hands each command to `answer`; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    await answer(command, writer)
        writer.close()

    async with listening(serve, port) as found:
        yield found


@asynccontextmanager
async def linked(answer: Answer, timeout_seconds: float = 5.0) -> AsyncIterator[RedisLink]:
    """Give a link to such a server."""
    async with server(answer) as port, RedisLink(f"redis://127.0.0.1:{port}", timeout_seconds) as link:
        assert link.connected
        yield link


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, ten seconds at most."""
    async with asyncio.timeout(180):
        while not condition():
            await asyncio.sleep(0.005)


async def outcome(call: Callable[[], Awaitable[Any]]) -> Any:
    """Return what a call gives or raises."""
    try:
        return await call()
    except StoreUnavailable as error:
        return error


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(), cancelled=st.floats(0, 0.5))
def test_a_thousand_callers_get_their_own_answers(seed: int, cancelled: float) -> None:
    """Replies arrive cut at any byte while callers give up at random: every other caller reads exactly its own answer."""

    async def main() -> None:
        rng = random.Random(seed)

        async def cut(command: list[bytes], writer: asyncio.StreamWriter) -> None:
            text = b"$%d\r\n%s\r\n" % (len(command[1]), command[1]) if command[0] == b"ECHO" else b"+OK\r\n"
            at = rng.randrange(len(text))
            writer.write(text[:at])
            if rng.random() < 0.05:
                await asyncio.sleep(0)
            writer.write(text[at:])

        async def caller(link: RedisLink, number: int) -> None:
            for step in range(3):
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
                text = b"%d:%d" % (number, step) * rng.randrange(1, 30)
                future = link.call(b"ECHO", text)
                if rng.random() < cancelled:
                    future.cancel()
                else:
                    assert await future == text

        async with linked(cut) as link:
            await asyncio.gather(*(caller(link, number) for number in range(1000)))

    asyncio.run(main())


async def test_calls_of_one_turn_leave_in_one_write() -> None:
    """What is called within one turn of the loop is one write."""
    async with linked(echo) as link:
        connection = link._connection
        assert connection is not None
        writes: list[bytes] = []
        real = connection._transport

        class Counting:
            """Counts writes and passes all through."""

            def write(self, data: bytes) -> None:
                """Count."""
                writes.append(data)
                real.write(data)

            def abort(self) -> None:
                """Pass."""
                real.abort()

        connection._transport = Counting()  # type: ignore[assignment]
        answers = await asyncio.gather(*(link.call(b"ECHO", b"%d" % number) for number in range(50)))
        assert answers == [b"%d" % number for number in range(50)]
        assert len(writes) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "stays"),
    [
        (b"-WRONGTYPE Operation against a key", StoreError, True),
        (b"-NOSCRIPT No matching script", NoScript, True),
        (b"-LOADING Redis is loading the dataset in memory", StoreUnavailable, True),
        (b"-BUSY Redis is busy running a script", StoreUnavailable, True),
        (b"-READONLY You can't write against a read only replica.", StoreUnavailable, False),
        (b"-MOVED 3999 127.0.0.1:6381", StoreUnavailable, True),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot", StoreUnavailable, True),
    ],
)
async def test_error_replies_are_typed(reply: bytes, kind: type[Exception], stays: bool) -> None:
    """An error reply reaches its caller only, as the error it is; a demoted server makes the link connect again."""

    async def answer(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if command[0] == b"FAIL":
            writer.write(reply + b"\r\n")
        else:
            await echo(command, writer)

    async with linked(answer) as link:
        before = link._connection
        with pytest.raises(kind) as caught:
            await link.call(b"FAIL")
        assert type(caught.value) in (kind, *kind.__subclasses__())
        await until(lambda: link.connected)
        assert (link._connection is before) == stays
        assert await link.call(b"ECHO", b"after") == b"after"


async def test_a_late_reply_is_not_taken_for_the_next() -> None:
    """A call that timed out keeps its place: while others are answered, its late reply is thrown away."""
    late = asyncio.Event()

    async def answer(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if command[0] == b"ECHO" and command[1] == b"slow":
            await late.wait()
        await echo(command, writer)

    async def trickle(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        """Answer every command, but half a reply at a time, so that something always comes back."""
        if command[0] == b"ECHO" and command[1] == b"slow":
            for _ in range(8):
                await asyncio.sleep(0.05)
        await echo(command, writer)

    async with linked(trickle, timeout_seconds=0.3) as link:
        numbers = [link.call(b"ECHO", b"%d" % number) for number in range(3)]
        results = await asyncio.gather(*numbers)
        slow, behind = link.call(b"ECHO", b"slow"), link.call(b"ECHO", b"behind")
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.3 s"):
            await slow
        with pytest.raises(StoreUnavailable):
            await behind
        assert results == [b"0", b"1", b"2"]
        await until(lambda: link.connected)
        for number in range(20):
            assert await link.call(b"ECHO", b"x%d" % number) == b"x%d" % number
    async with linked(answer, timeout_seconds=0.2) as link:
        with pytest.raises(StoreUnavailable):
            await link.call(b"ECHO", b"slow")
        with pytest.raises(StoreUnavailable, match="did not answer"):  # silence: the connection itself was given up
            link.call(b"ECHO", b"next")
        late.set()
        await until(lambda: link.connected)
        assert await link.call(b"ECHO", b"fresh") == b"fresh"


async def test_an_overdue_call_is_told_while_the_connection_lives() -> None:
    """As long as replies keep coming the connection stays: only what is overdue fails, and the order holds after it."""

    async def steady(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        await echo(command, writer)

    async with linked(steady, timeout_seconds=0.5) as link:
        before = link._connection
        results = await asyncio.gather(*(outcome(lambda n=n: link.call(b"ECHO", b"%d" % n)) for n in range(20)))  # type: ignore[misc]
        answered = [result for result in results if isinstance(result, bytes)]
        assert answered == [b"%d" % number for number in range(len(answered))]
        assert 0 < len(answered) < 20
        async with asyncio.timeout(180):
            while await outcome(lambda: link.call(b"ECHO", b"again")) != b"again":
                pass
        assert link._connection is before


async def test_a_connection_lost_in_the_middle_of_a_reply() -> None:
    """Half a reply is no reply: everyone who waits hears of it, the link comes back, and nothing of the old connection leaks in."""
    cut = True

    async def answer(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        nonlocal cut
        if cut and command == [b"ECHO", b"3"]:
            cut = False
            writer.write(b"$1\r\n")
            await writer.drain()
            writer.transport.abort()
            return
        await echo(command, writer)

    async with linked(answer) as link:
        results = await asyncio.gather(*(outcome(lambda n=n: link.call(b"ECHO", b"%d" % n)) for n in range(6)))  # type: ignore[misc]
        assert all(isinstance(result, StoreUnavailable) for result in results[3:])
        answered = [result for result in results if isinstance(result, bytes)]
        assert answered == [b"0", b"1", b"2"][: len(answered)]
        await until(lambda: link.connected)
        assert await link.call(b"ECHO", b"back") == b"back"


async def test_calls_fail_at_once_while_nothing_listens_and_work_when_it_does() -> None:
    """A link starts without Redis, says why it is down, and comes up by itself."""
    async with server(echo) as port:
        pass
    changes: list[str | None] = []
    async with RedisLink(f"redis://127.0.0.1:{port}", 0.2, changes.append) as link:
        assert not link.connected
        with pytest.raises(StoreUnavailable, match=r"cannot reach Redis at 127\.0\.0\.1"):
            link.call(b"PING")
        async with server(echo, port):
            await until(lambda: link.connected)
            assert await link.call(b"ECHO", b"x") == b"x"
        await until(lambda: not link.connected and changes[-1] is not None)
    assert None in changes
    assert changes[0] is not None


async def test_a_call_in_the_turn_of_a_loss_fails() -> None:
    """Between the loss of a connection and the next turn of the loop no call slips onto the dead connection."""
    async with linked(echo) as link:
        connection = link._connection
        assert connection is not None
        connection.drop("pulled")
        with pytest.raises(StoreUnavailable, match="pulled"):
            link.call(b"PING")


async def test_garbage_drops_the_connection() -> None:
    """A server that does not speak the protocol is an error, not a hang or a wrong answer."""

    async def garbage(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" if command[0] == b"ECHO" else b"+OK\r\n")

    async with linked(garbage) as link:
        with pytest.raises(StoreUnavailable, match="invalid reply"):
            await link.call(b"ECHO", b"x")


async def test_answers_nobody_asked_for_drop_the_connection() -> None:
    """A surplus reply would shift all that follow."""

    async def twice(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        await echo(command, writer)
        if command[0] == b"ECHO":
            await echo(command, writer)

    async with linked(twice) as link:
        before = link._connection
        await outcome(lambda: link.call(b"ECHO", b"x"))
        await until(lambda: link.connected and link._connection is not before)


async def test_after_close_calls_fail_and_waiting_ones_are_told() -> None:
    """Closing leaves nobody waiting."""

    async def never(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if command[0] == b"PING":
            writer.write(b"+PONG\r\n")

    async with linked(never) as link:
        waiting = link.call(b"GET", b"x")
        await asyncio.sleep(0)
        await link.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await waiting
        with pytest.raises(StoreUnavailable, match="closed"):
            link.call(b"GET", b"x")


async def test_an_argument_of_a_wrong_type_harms_nobody() -> None:
    """The caller hears of it before anything is queued."""
    async with linked(echo) as link:
        with pytest.raises(TypeError):
            link.call(b"ECHO", None)  # type: ignore[arg-type]
        assert await link.call(b"ECHO", b"x") == b"x"
