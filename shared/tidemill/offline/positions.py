"""`/positions`: how far tables mirror their topics, for tools that wait until a record is there."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tidemill.offline.mirror import Follower
from tidemill.runtime.asgi import OpsApp, Receive, Scope, Send, respond
from tidemill.runtime.health import HealthBoard


class PositionsApp:
    """The ASGI application of a writer: `/positions` (topic -> partition -> next offset of the table), `/metrics` and `/health/*`."""

    def __init__(self, board: HealthBoard, mirrors: Sequence[Follower]) -> None:
        self._ops = OpsApp(board)
        self._mirrors = mirrors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] == "http" and scope["path"] == "/positions" and scope["method"] in ("GET", "HEAD"):
            await respond(send, 200, msgspec.json.encode({mirror.table.topic: mirror.positions for mirror in self._mirrors}))
        else:
            await self._ops(scope, receive, send)
