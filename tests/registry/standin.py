"""A server that answers as a schema registry in trouble does: what a real one cannot be made to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """`answers`: path -> status and body; other paths are 404. `asked`: the paths that were asked for, and `sent`: their Authorization."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.sent: list[str | None] = []
        self.url = ""

    def holds(self, number: int, kind: str, text: str, **more: Any) -> None:
        """It has a schema under an id."""
        self.answers[f"/schemas/ids/{number}"] = (200, json.dumps({"schema": text, "schemaType": kind, **more}).encode())

    def knows(self, guid: str, kind: str, text: str) -> None:
        """It has a schema under a GUID."""
        self.answers[f"/schemas/guids/{guid}"] = (200, json.dumps({"schema": text, "schemaType": kind, "guid": guid}).encode())


@contextmanager
def standing_in() -> Iterator[StandIn]:
    """Runs it."""
    found = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            found.sent.append(self.headers["Authorization"])
            status, body = found.answers.get(self.path, (404, b'{"error_code": 40403, "message": "Schema not found"}'))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()
