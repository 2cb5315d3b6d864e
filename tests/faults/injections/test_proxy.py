"""The proxy alone, before a small echo server: what is cut, held, slowed and lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.faults.injections.proxy import HOST, Proxy
from tests.patience import PATIENCE_SECONDS


class Echo:
    """Answers each line with itself, from a thread per connection; keeps what it heard."""

    def __init__(self, prefix: bytes = b"") -> None:
        self.heard: list[bytes] = []
        self._prefix = prefix
        self._socket = socket.create_server((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    self.heard.append(data)
                    connection.sendall(self._prefix + data)
            except OSError:
                return

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # or the thread that waits in it would still take one
        self._socket.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server."""
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    """A proxy before it."""
    with Proxy() as made:
        made.lead_to(HOST, echo.port)
        yield made


class Client:
    """A connection through a proxy, closed with the test."""

    opened: list[socket.socket] = []

    def __init__(self, proxy: Proxy) -> None:
        self.socket = socket.create_connection((HOST, proxy.port), timeout=PATIENCE_SECONDS)
        self.opened.append(self.socket)

    def ask(self, data: bytes) -> bytes:
        """Send and read as much; empty when the connection is closed."""
        try:
            self.socket.sendall(data)
            answer = b""
            while len(answer) < len(data):
                more = self.socket.recv(1 << 16)
                if not more:
                    return b""
                answer += more
        except ConnectionError:
            return b""
        return answer


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what a test has opened."""
    yield
    while Client.opened:
        Client.opened.pop().close()


def test_forwards(proxy: Proxy) -> None:
    """Everything comes through unchanged, however long, in both directions, for many at once."""
    clients = [Client(proxy) for _ in range(3)]
    for number, client in enumerate(clients):
        data = bytes([number]) * 300_000
        assert client.ask(data) == data
    assert proxy.connections == 3


def test_a_cut_ends_connections_and_not_the_proxy(proxy: Proxy) -> None:
    """After a cut the client sees its connection closed; another one works."""
    client = Client(proxy)
    assert client.ask(b"x") == b"x"
    assert proxy.cut() == 1
    assert client.ask(b"y") == b""
    assert Client(proxy).ask(b"z") == b"z"


def test_refuses_until_told_otherwise(proxy: Proxy) -> None:
    """Refusing, nobody gets through; then everybody does again."""
    proxy.refuse()
    assert Client(proxy).ask(b"x") == b""
    proxy.refuse(False)
    assert Client(proxy).ask(b"x") == b"x"


def test_half_open(proxy: Proxy, echo: Echo) -> None:
    """In silence nothing arrives and nothing is closed, for new connections too; afterwards what was held is lost."""
    old = Client(proxy)
    assert old.ask(b"before") == b"before"
    proxy.silence()
    for client in (old, Client(proxy)):
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.ask(b"held")
    proxy.silence(False)
    old.socket.settimeout(10)
    assert old.ask(b"after") == b""
    assert Client(proxy).ask(b"new") == b"new"
    assert echo.heard == [b"before", b"new"]


def test_robbed_of_replies(proxy: Proxy, echo: Echo) -> None:
    """The next two requests of a kind are heard by the server; their clients lose their connections instead of getting a reply."""
    proxy.rob(lambda data: b"write" in data, 2)
    reader = Client(proxy)
    assert reader.ask(b"read") == b"read"
    for number in range(2):
        assert Client(proxy).ask(b"write %d" % number) == b""
    assert proxy.to_rob == 0
    assert Client(proxy).ask(b"write 2") == b"write 2"
    assert reader.ask(b"read") == b"read"
    assert echo.heard == [b"read", b"write 0", b"write 1", b"write 2", b"read"]


def test_slow_and_then_fast_again(proxy: Proxy) -> None:
    """Late and at a trickle everything still comes whole; what is on its way when it ends need not wait for the rest of its time."""
    client = Client(proxy)
    proxy.slow(latency_seconds=0.05)
    assert client.ask(b"late") == b"late"
    proxy.slow(bytes_per_second=100_000)
    assert client.ask(b"x" * 30_000) == b"x" * 30_000
    proxy.slow(bytes_per_second=10)
    asking = threading.Thread(target=client.ask, args=(b"y" * 30_000,))
    asking.start()
    asking.join(0.3)
    assert asking.is_alive()
    proxy.slow()
    asking.join(PATIENCE_SECONDS)
    assert not asking.is_alive()


def test_leads_elsewhere(proxy: Proxy) -> None:
    """Led to another server, old connections end and new ones reach the new server."""
    other = Echo(b"other ")
    client = Client(proxy)
    assert client.ask(b"x") == b"x"
    proxy.lead_to(HOST, other.port)
    assert client.ask(b"x") == b""
    fresh = Client(proxy)
    fresh.socket.sendall(b"x")
    assert fresh.socket.recv(100) == b"other x"
    other.close()


def test_a_server_that_is_away(proxy: Proxy, echo: Echo) -> None:
    """Without a server, or before there is one, a client's connection ends, and the proxy lives on."""
    echo.close()
    assert Client(proxy).ask(b"x") == b""
    with Proxy() as fresh:
        assert Client(fresh).ask(b"x") == b""
