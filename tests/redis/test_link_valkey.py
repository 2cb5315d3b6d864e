"""The Redis link against a real Valkey: commands, scripts, and a server that stops, dies, comes back or is demoted."""

import asyncio
import hashlib
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import redis.asyncio
from tests.beside import listening
from tests.frozen import freeze
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import StoreError, StoreUnavailable
from tidemill.local import valkey as local_valkey
from tidemill.local.processes import free_port
from tidemill.redis.link import RedisLink

pytestmark = pytest.mark.integration

CAS = """#!lua
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0, redis.call('GET', KEYS[1])} end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], ARGV[2])
return {1, ARGV[2]}
"""


class OwnValkey:
    """A Valkey of the test's own, to be stopped and killed."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port(set())
        self.folder, self.options = folder, options
        self.process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, without waiting."""
        command = [*local_valkey.command(self.port), "--loglevel", "warning", *self.options]
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it as a power cut of its process would."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnValkey]:
    """Return a running Valkey of this test alone."""
    with OwnValkey(tmp_path) as server:
        yield server


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, twenty seconds at most."""
    async with asyncio.timeout(180):
        while not condition():
            await asyncio.sleep(0.005)


async def test_replies_are_those_of_another_client(redis_url: str) -> None:
    """Every kind of reply equals what redis-py reads."""
    commands: list[tuple[Any, ...]] = [
        (b"SET", b"k", b"v"), (b"GET", b"k"), (b"GET", b"none"), (b"INCR", b"n"), (b"INCRBY", b"n", 41), (b"MGET", b"k", b"none", b"n"),
        (b"HSET", b"h", b"a", 1, b"b", 2.5), (b"HGETALL", b"h"), (b"RPUSH", b"l", b"x", "y"), (b"LRANGE", b"l", 0, -1), (b"LRANGE", b"none", 0, -1),
        (b"EVAL", "return {1, {'a', {}}, false}", 0), (b"SET", b"", b""), (b"GET", b""), (b"EXISTS", b"k"),
    ]  # fmt: skip
    async with RedisLink(redis_url) as link:
        ours = [await link.call(*command) for command in commands]
        await link.call(b"FLUSHALL")
    client = redis.asyncio.Redis.from_url(redis_url, protocol=2)
    for callback in list(client.response_callbacks):
        del client.response_callbacks[callback]
    theirs = [await client.execute_command(*command) for command in commands]  # type: ignore[no-untyped-call]
    await client.aclose()
    assert ours == theirs


async def test_big_values_come_back_whole(redis_url: str) -> None:
    """Values of many megabytes pass both ways beside small ones."""
    async with RedisLink(redis_url, 20.0) as link:
        big = bytes(range(256)) * 80_000
        await asyncio.gather(*(link.call(b"SET", b"k%d" % n, big if n % 7 == 0 else b"%d" % n) for n in range(21)))
        values = await asyncio.gather(*(link.call(b"GET", b"k%d" % n) for n in range(21)))
        assert all(value == (big if n % 7 == 0 else b"%d" % n) for n, value in enumerate(values))


async def test_a_thousand_callers_beside_each_other(redis_url: str) -> None:
    """Each reads what it wrote."""
    async with RedisLink(redis_url, 20.0) as link:

        async def caller(number: int) -> None:
            key = b"caller:%d" % number
            for step in range(5):
                await link.call(b"SET", key, b"%d" % step)
                assert await link.call(b"MGET", key, b"none") == [b"%d" % step, None]

        await asyncio.gather(*(caller(number) for number in range(1000)))
        assert await link.call(b"DBSIZE") == 1000


async def test_error_replies_fail_their_own_call_only(redis_url: str) -> None:
    """The calls before and after a failing one are answered."""
    async with RedisLink(redis_url) as link:
        await link.call(b"SET", b"text", b"abc")
        before, wrong, after = link.call(b"GET", b"text"), link.call(b"INCR", b"text"), link.call(b"GET", b"text")
        assert await before == b"abc"
        with pytest.raises(StoreError, match="not an integer") as caught:
            await wrong
        assert caught.value.code == "ERR"
        assert await after == b"abc"
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await link.call(b"LPUSH", b"text", b"x")


async def test_scripts_run_by_digest_and_survive_a_flush(redis_url: str) -> None:
    """The text is sent when the server does not hold it, also after it was made to forget, and never otherwise."""
    async with RedisLink(redis_url) as link:
        await link.call(b"SCRIPT", b"FLUSH")
        await link.call(b"SET", b"{p}f", b"10")
        assert await link.script(CAS, [b"{p}f", b"{p}e"], [b"10", b"20", b"state"]) == [1, b"20"]
        digest = hashlib.sha1(CAS.encode(), usedforsecurity=False).hexdigest()
        assert await link.call(b"SCRIPT", b"EXISTS", digest) == [1]
        evals_before = await calls_of(link, "eval")
        assert await link.script(CAS, [b"{p}f", b"{p}e"], [b"10", b"20", b"other"]) == [0, b"20"]
        assert await calls_of(link, "eval") == evals_before
        await link.call(b"SCRIPT", b"FLUSH")
        assert await link.script(CAS, [b"{p}f", b"{p}e"], [b"20", b"30", b"new"]) == [1, b"30"]
        assert await link.call(b"MGET", b"{p}f", b"{p}e") == [b"30", b"new"]


async def calls_of(link: RedisLink, command: str) -> int:
    """Return how often the server ran a command."""
    stats = (await link.call(b"INFO", b"commandstats")).decode()
    line = next((line for line in stats.splitlines() if line.startswith(f"cmdstat_{command}:")), "calls=0,")
    return int(line.split("calls=")[1].split(",")[0])


async def test_an_error_inside_a_script_is_told(redis_url: str) -> None:
    """A script's own error is a StoreError, not a missing script."""
    async with RedisLink(redis_url) as link:
        with pytest.raises(StoreError, match="broken on purpose"):
            await link.script("return redis.error_reply('ERR broken on purpose')", [], [])


async def test_a_stopped_server_is_a_time_out_and_then_works_again(own: OwnValkey) -> None:
    """Calls to a server that hangs fail after their time, later ones at once; when it goes on the link does too, in order."""
    async with RedisLink(own.url, 0.3) as link:
        await until(lambda: link.connected)
        await link.call(b"SET", b"k", b"v")
        freeze(own.process.pid)
        try:
            results = await asyncio.gather(*(link.call(b"GET", b"k") for _ in range(100)), return_exceptions=True)
            assert all(isinstance(result, StoreUnavailable) for result in results)
            with pytest.raises(StoreUnavailable):
                await link.call(b"GET", b"k")
        finally:
            own.process.send_signal(signal.SIGCONT)
        await until(lambda: link.connected)
        assert await asyncio.gather(*(link.call(b"ECHO", b"%d" % n) for n in range(100))) == [b"%d" % n for n in range(100)]


async def test_kills_and_restarts_under_load(own: OwnValkey) -> None:
    """While the server is killed three times callers get their own answers or StoreUnavailable, and every acknowledged write is there."""
    acknowledged: dict[int, int] = {}
    failures = 0
    async with RedisLink(own.url, 1.0) as link:
        await until(lambda: link.connected)
        end = asyncio.Event()

        async def caller(number: int) -> None:
            nonlocal failures
            step = 0
            while not end.is_set():
                step += 1
                try:
                    assert await link.call(b"SET", b"k%d" % number, b"%d" % step) == b"OK"
                    acknowledged[number] = step
                    assert await link.call(b"ECHO", b"%d:%d" % (number, step)) == b"%d:%d" % (number, step)
                except StoreUnavailable:
                    failures += 1
                    await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(caller(number))
            for _ in range(3):
                await asyncio.sleep(0.2)
                own.kill()
                await until(lambda: not link.connected)
                own.start()
                await until(lambda: link.connected)
            end.set()
        assert failures >= 20
        for number, step in acknowledged.items():
            assert int(await link.call(b"GET", b"k%d" % number)) >= step


async def test_a_long_script_times_out_without_shifting_replies(own: OwnValkey) -> None:
    """A server busy with one script answers late: the call is given up and no later call reads its reply."""
    busy = "local start = redis.call('TIME') while redis.call('TIME')[1] - start[1] < 2 do end return 'late'"
    async with RedisLink(own.url, 0.3) as link:
        await until(lambda: link.connected)
        with pytest.raises(StoreUnavailable):
            await link.script(busy, [], [])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (answer := await _echo(link)) is None:  # on a busy machine the server may be as late again
                await until(lambda: link.connected)
        assert answer == b"mine"


async def _echo(link: RedisLink) -> object:
    try:
        return await link.call(b"ECHO", b"mine")
    except StoreUnavailable:
        return None


async def test_a_demoted_server_is_left_and_found_again(own: OwnValkey) -> None:
    """A write to a replica is StoreUnavailable; once the server is primary again the link writes."""
    async with RedisLink(own.url, 1.0) as link:
        await until(lambda: link.connected)
        await link.call(b"REPLICAOF", b"127.0.0.1", own.port + 1 if own.port < 65535 else 1)
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await link.call(b"SET", b"k", b"v")
        await until(lambda: link.connected)
        await link.call(b"REPLICAOF", b"NO", b"ONE")
        assert await link.call(b"SET", b"k", b"v") == b"OK"


async def test_user_password_and_database_come_from_the_url(tmp_path: Path) -> None:
    """The right password works, a wrong one is named without being shown, and databases are apart."""
    with OwnValkey(tmp_path, "--requirepass", "enigma") as own:
        good = f"redis://default:enigma@127.0.0.1:{own.port}"
        async with RedisLink(f"{good}/3", 1.0) as three, RedisLink(good, 1.0) as zero:
            await until(lambda: three.connected and zero.connected)
            await three.call(b"SET", b"k", b"three")
            assert await zero.call(b"GET", b"k") is None
        reasons: list[str | None] = []
        async with RedisLink(f"redis://:wrong@127.0.0.1:{own.port}", 0.5, reasons.append) as link:
            with pytest.raises(StoreUnavailable, match="WRONGPASS") as caught:
                link.call(b"PING")
        assert "REDIS_URL" in caught.value.mend
        assert "wrong@" not in str(reasons)


async def test_a_unix_socket_works(tmp_path: Path) -> None:
    """The same commands pass through a socket file."""
    with OwnValkey(tmp_path, "--unixsocket", "v.sock"):
        async with RedisLink(f"unix://{tmp_path}/v.sock?db=1", 1.0) as link:
            await until(lambda: link.connected)
            await link.call(b"SET", b"k", b"v")
            assert await link.call(b"GET", b"k") == b"v"


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Return the files of a new certificate for localhost and of its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", key, "-out", certificate,
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


async def test_tls_works_and_verifies(tmp_path: Path) -> None:
    """A proxy with a self-signed certificate is refused unless its authority is given or verification is switched off."""
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    with OwnValkey(tmp_path) as own:

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", own.port)
            try:
                await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer), return_exceptions=True)
            finally:
                inner_writer.transport.abort()

        async with RedisLink(own.url, 1.0) as plain:
            await until(lambda: plain.connected)
        async with listening(proxy, tls=context) as port:
            url = f"rediss://localhost:{port}"
            for query in (f"?ssl_ca_certs={certificate}", "?ssl_cert_reqs=none"):
                async with RedisLink(url + query, 2.0) as link:
                    await until(lambda link=link: link.connected)  # type: ignore[misc]
                    assert await link.call(b"ECHO", b"secret") == b"secret"
            async with RedisLink(url, 1.0) as link:
                with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
                    link.call(b"PING")


async def test_waiting_never_exceeds_a_bound(own: OwnValkey) -> None:
    """Even with a server that hangs for good, start, call and close come back (the bound is generous; nothing is timed closely)."""
    link = RedisLink(own.url, 0.2)
    async with asyncio.timeout(180):
        await link.start()
        await until(lambda: link.connected)
        freeze(own.process.pid)
        began = time.monotonic()
        while time.monotonic() - began < 1:
            with pytest.raises(StoreUnavailable):
                await link.call(b"PING")
            await asyncio.sleep(0.01)
        await link.close()
