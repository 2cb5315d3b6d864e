"""One connection for many questions: it is opened again after a failure, and says who does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tidemill.errors import Unavailable
from tidemill.operations.inference_client import InferenceClient

CONNECTIONS: list[tuple[str, int]] = []


class Echo(BaseHTTPRequestHandler):
    """Answers a body with itself; the path says with which status. `/hang-up`: ends the connection without an answer."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        CONNECTIONS.append(self.client_address)
        if self.path == "/hang-up":
            self.close_connection = True
            return
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Return the address of a server that echoes."""
    CONNECTIONS.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_questions_share_a_connection(url: str) -> None:
    """Status and content come back, errors included; a path before the address's own is kept."""
    with InferenceClient(url + "/below/") as client:
        assert client.post("/200", b"[1]") == (200, b"[1]")
        assert client.post("/503", b"x" * 100_000) == (503, b"x" * 100_000)
    assert len(set(CONNECTIONS)) == 1


def test_after_a_failure_it_connects_again(url: str) -> None:
    """No answer is an error with the address; the next question finds the server again."""
    with InferenceClient(url) as client:
        with pytest.raises(Unavailable, match=rf"{url} does not answer: RemoteDisconnected"):
            client.post("/hang-up", b"{}")
        assert client.post("/200", b"{}") == (200, b"{}")


def test_nobody_listens() -> None:
    """A refused connection is named."""
    with (
        InferenceClient("http://127.0.0.1:1") as client,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 does not answer: ConnectionRefused"),
    ):
        client.post("/200", b"")
