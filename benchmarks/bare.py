"""The least a Python HTTP server can do: read the body, answer as many bytes as the path says. What tidemill adds is the rest.

python -m benchmarks.bare      listens on TIDEMILL_HOST and TIDEMILL_PORT
"""

from __future__ import annotations

import asyncio

import uvloop

from tidemill.runtime.asgi import Receive, Scope, Send, respond
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.routes import read_body
from tidemill.runtime.service import run_workers
from tidemill.runtime.settings import HttpSettings


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers POST /<bytes> with so many bytes; /health/ready is for whoever starts it."""
    if scope["type"] == "http":
        await read_body(receive)
        size = scope["path"].rpartition("/")[2]
        await respond(send, 200, b"x" * int(size) if size.isdigit() else b"{}")


if __name__ == "__main__":
    uvloop.run(run_workers(app, HttpSettings.load(), asyncio.Event().wait(), [], HealthBoard()))
