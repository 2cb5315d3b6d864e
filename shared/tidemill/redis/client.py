"""The store's client that REDIS_URL asks for: one server or a cluster, behind the same few methods.

    async with redis_client(settings.url, timeout_seconds=0.25) as link:
        values = await link.mget([fence_key, entity_key])

`tidemill.redis.link` describes one server, `tidemill.redis.cluster` what is different in a cluster: keys of different slots are never read
or written at one moment. All keys of one partition of a view share a slot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, Self

from tidemill.errors import StoreError, StoreUnavailable
from tidemill.redis.address import RedisAddress
from tidemill.redis.cluster import RedisCluster
from tidemill.redis.link import Arg, RedisLink


class RedisClient(Protocol):
    """What RedisLink and RedisCluster have in common."""

    @property
    def connected(self) -> bool:
        """Whether a call would be sent now."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def call(self, *args: Arg) -> Awaitable[Any]:
        """Send one command, the second word of which is a key."""

    async def script(self, lua: str, keys: Sequence[Arg], args: Sequence[Arg]) -> Any:
        """Run a Lua script whose keys share a slot."""

    def mget(self, keys: Iterable[Arg]) -> Awaitable[list[bytes | None]]:
        """The values of keys; those of one slot at one moment."""

    def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """The keys that match, some at a time: each that is there all the while at least once."""

    async def everywhere(self, *args: Arg) -> list[Any]:
        """The replies of all primaries to a command without a key."""


def redis_client(url: str, timeout_seconds: float = 1.0, on_change: Callable[[str | None], None] | None = None) -> RedisClient:
    """The client for a URL as `tidemill.redis.address` describes it; it connects when it is entered. Raises SettingsError.

    `on_change` is called with None when the store can be reached and with the reason when it cannot, for a health board.
    """
    nodes = RedisAddress.of_cluster(url)
    return RedisCluster(nodes, timeout_seconds, on_change) if nodes else RedisLink(url, timeout_seconds, on_change)


async def keep_asking(link: RedisClient) -> None:
    """Ask the store for a sign of life every second, for ever: one that takes connections and says nothing is noticed before a caller waits."""
    while True:
        with contextlib.suppress(StoreUnavailable, StoreError):  # the link tells the board
            await link.everywhere(b"PING")
        await asyncio.sleep(1)
