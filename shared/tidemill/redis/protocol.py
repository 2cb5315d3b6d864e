"""What users of the online store ask of its client. It needs no library: one server, a cluster and the twin of `tidemill.testing` answer alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import Any, Protocol, Self

Arg = bytes | str | int | float


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
