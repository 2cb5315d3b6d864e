"""The one door to every application of every service: it checks the caller of each request, on every route, before the application sees it.

    app = door(app, check)      # `check` gets the request's scope, and raises a TidemillError to refuse it

Without a check the door is the application itself and costs nothing. The health of a process stays open, because a supervisor has no key;
its metrics do not. A refusal has the shape of every error: `{"error": ..., "mend": ...}`, with the HTTP status of the error that the check
raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tidemill.errors import TidemillError
from tidemill.runtime.asgi import Receive, Scope, Send, respond
from tidemill.runtime.http import error_answer

Check = Callable[[Scope], None]
"""Looks at the caller of a request (method, path and headers are in the scope). Raises a TidemillError to refuse it."""

OPEN: Final = frozenset({"/health/live", "/health/ready"})
"""Paths that are not checked."""

_POLICY_VIOLATION = 1008  # of the WebSocket protocol


def door(app: Any, check: Check | None = None) -> Any:
    """An ASGI application that passes on the requests that `check` does not refuse."""
    if check is None:
        return app

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN:
            await app(scope, receive, send)
            return
        try:
            check(scope)
        except Exception as error:
            await _refuse(scope, send, error)
        else:
            await app(scope, receive, send)

    return checked


async def _refuse(scope: Scope, send: Send, error: Exception) -> None:
    """Any exception of the check refuses the request, also one that the check did not mean to raise."""
    status, body = error_answer(error)
    if scope["type"] == "http":
        await respond(send, status, body)
    else:
        reason = error.message if isinstance(error, TidemillError) else ""
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason[:100]})
