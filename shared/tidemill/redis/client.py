"""The client of the online store for REDIS_URL: one server or a cluster, with the same few methods.

    async with redis_client(settings.url, timeout_seconds=0.25) as link:
        values = await link.mget([fence_key, entity_key])

`tidemill.redis.link` describes one server, `tidemill.redis.cluster` the differences of a cluster: no command reads or writes keys of
different slots at one moment. All keys of one partition of a view share a slot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from tidemill.errors import StoreError, StoreUnavailable
from tidemill.redis.address import RedisAddress
from tidemill.redis.cluster import RedisCluster
from tidemill.redis.link import RedisLink
from tidemill.redis.protocol import RedisClient


def redis_client(url: str, timeout_seconds: float = 1.0, on_change: Callable[[str | None], None] | None = None) -> RedisClient:
    """The client for a URL as `tidemill.redis.address` describes it. It connects at `async with`. Raises SettingsError.

    `on_change` is called with None when the store can be reached and with the reason when it cannot, for a health board.
    """
    nodes = RedisAddress.of_cluster(url)
    return RedisCluster(nodes, timeout_seconds, on_change) if nodes else RedisLink(url, timeout_seconds, on_change)


async def keep_asking(link: RedisClient) -> None:
    """Send a PING every second, for ever: this notices a store that accepts connections and never answers, before a caller waits for it."""
    while True:
        with contextlib.suppress(StoreUnavailable, StoreError):  # the link tells the board
            await link.everywhere(b"PING")
        await asyncio.sleep(1)
