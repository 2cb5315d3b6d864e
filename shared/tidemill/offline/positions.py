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
            await respond(send, 200, msgspec.json.encode(positions(self._mirrors)))
        else:
            await self._ops(scope, receive, send)


def positions(mirrors: Sequence[Follower]) -> dict[str, dict[int, int]]:
    """Topic -> partition -> the next offset that no table has; of a topic with several tables that of the last one."""
    found: dict[str, dict[int, int]] = {}
    for mirror in mirrors:
        others = found.get(mirror.table.topic, mirror.positions)
        found[mirror.table.topic] = {p: min(others.get(p, 0), mirror.positions.get(p, 0)) for p in {*others, *mirror.positions}}
    return found
