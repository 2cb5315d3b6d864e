"""The methods that the online store needs from its client. RedisLink, RedisCluster and the twin in `tidemill.testing` have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import Any, Protocol, Self

Arg = bytes | str | int | float


class RedisClient(Protocol):
    """A client of one server or of a cluster."""

    @property
    def connected(self) -> bool:
        """Whether a call would be sent now."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def call(self, *args: Arg) -> Awaitable[Any]:
        """Send one command whose second word is a key."""

    async def script(self, lua: str, keys: Sequence[Arg], args: Sequence[Arg]) -> Any:
        """Run a Lua script whose keys share a slot."""

    def mget(self, keys: Iterable[Arg]) -> Awaitable[list[bytes | None]]:
        """The values of keys. Keys of one slot are read at one moment."""

    def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """The keys that match, in portions. A key that exists all the time comes at least once."""

    async def everywhere(self, *args: Arg) -> list[Any]:
        """The replies of all primaries to a command without a key."""
