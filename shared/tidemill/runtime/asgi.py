"""Plain ASGI: the types, one way to answer, and the application that serves `/metrics`, `/health/live` and `/health/ready`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON: Final = b"application/json"


async def respond(send: Send, status: int, body: bytes, content_type: bytes = JSON) -> None:
    """Send one whole HTTP answer from a plain ASGI application."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class OpsApp:
    """The ASGI application of `/metrics`, `/health/live` and `/health/ready`; 404 and 405 elsewhere."""

    PATHS: Final = ("/metrics", "/health/live", "/health/ready")

    def __init__(self, board: HealthBoard) -> None:
        self.board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served here, not {scope['type']}")
        await respond(send, *self._answer(scope["method"], scope["path"]))

    def _answer(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        if path not in self.PATHS:
            return 404, msgspec.json.encode({"error": f"no such path: {path}", "mend": f"try {', '.join(self.PATHS)}"}), JSON
        if method not in ("GET", "HEAD"):
            return 405, msgspec.json.encode({"error": f"{method} is not allowed here", "mend": "use GET"}), JSON
        if path == "/metrics":
            content_type, body = metrics.exposition()
            return 200, body, content_type.encode()
        return *(self.board.live_answer() if path == "/health/live" else self.board.ready_answer()), JSON
