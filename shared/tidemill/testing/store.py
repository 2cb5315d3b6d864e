"""The twin of Redis: the keys in a dict, and the scripts of `tidemill.online` in Python.

    link = MemoryRedis()
    await OnlineWriter(link, project.name).apply(view.log, 0, None, fence, values)   # writer, reader and claim are those of production

Requests run one after the other, as in Redis. `tests/testing` runs one suite over this twin and over a real server.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

from tidemill.errors import StoreError
from tidemill.online import claim, writer
from tidemill.redis.protocol import Arg


class Kept(NamedTuple):
    """A value, and when it expires, in seconds of the store's clock (None: never)."""

    value: bytes
    until: float | None = None


Script = Callable[[Sequence[bytes], Sequence[bytes]], Any]


class MemoryRedis:
    """A `RedisClient` and its server. `data`: the values by key; `clock`: gives seconds, by which claims expire."""

    connected = True

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.data: dict[bytes, Kept] = {}
        self._clock = clock
        self._scripts: dict[str, Script] = {
            writer.APPLY: self._apply,
            writer.STEP: self._step,
            claim.TAKE: self._take,
            claim.RELEASE: self._release,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def call(self, *args: Arg) -> Any:
        """GET, DEL, and SET with NX, GET and PX. Raises StoreError for any other command."""
        command, *rest = map(raw, args)
        match command:
            case b"GET":
                return self.get(rest[0])
            case b"SET":
                return self._set(*rest)
            case b"DEL":
                return self.drop(rest)
        raise StoreError(f"the store's twin does not know {command!r}", mend="use a real server for it")

    async def script(self, lua: str, keys: Sequence[Arg], args: Sequence[Arg]) -> Any:
        """Run a script of `tidemill.online`."""
        return self.run(lua, keys, args)

    async def mget(self, keys: Iterable[Arg]) -> list[bytes | None]:
        """The values of some keys, all at the same moment."""
        return self.get_all(keys)

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """The keys that match, all at once."""
        yield self.matching(pattern)

    async def everywhere(self, *args: Arg) -> list[Any]:
        """PING, and what INFO says of memory."""
        return [b"PONG"] if raw(args[0]) == b"PING" else [b"# Memory\r\nmaxmemory_policy:noeviction\r\n"]

    # What the server does, one request after the other

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None when there is none or it has expired."""
        found = self.data.get(key)
        if found is None or (found.until is not None and found.until <= self._clock()):
            return None
        return found.value

    def get_all(self, keys: Iterable[Arg]) -> list[bytes | None]:
        """The values of some keys, all at the same moment."""
        return [self.get(raw(key)) for key in keys]

    def put(self, key: bytes, value: bytes, lease_ms: int | None = None) -> None:
        """Set a value, for ever or for `lease_ms`."""
        self.data[key] = Kept(value, None if lease_ms is None else self._clock() + lease_ms / 1000)

    def drop(self, keys: Iterable[bytes]) -> int:
        """Delete keys. Returns how many existed."""
        return sum(self.data.pop(key, None) is not None for key in keys)

    def matching(self, pattern: bytes) -> list[bytes]:
        """The keys that match a pattern. Its only `*` stands at its end."""
        prefix = pattern.removesuffix(b"*")
        return [key for key in self.data if key.startswith(prefix) and self.get(key) is not None]

    def run(self, lua: str, keys: Sequence[Arg], args: Sequence[Arg]) -> Any:
        """Run a script. Raises StoreError for a script that is not in `tidemill.online`."""
        if lua not in self._scripts:
            raise StoreError("the store's twin does not know this script", mend="use a real server for it")
        return self._scripts[lua]([raw(key) for key in keys], [raw(arg) for arg in args])

    def fits(self, key: bytes, expected: bytes) -> bool:
        """Whether the fence, or the claim in its place, is the expected one (empty: none)."""
        return (self.get(key) or b"") == expected

    def advance(self, key: bytes, fence: bytes) -> None:
        """Write the new fence, after all values."""
        self.put(key, fence)

    def _apply(self, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        fence, (expected, following, count) = keys[0], args[:3]
        if not self.fits(fence, expected):
            return self.get(fence) or b""
        at = 3 + int(count)
        wholes, patched, patches = keys[1 : at - 2], keys[at - 2 :], list[Sequence[bytes]]()
        values = args[3:at]
        for key in patched:
            length, pieces = int(args[at]), int(args[at + 1])
            if len(self.get(key) or b"") != length:
                return [key]
            patches.append(args[at + 2 : at + 2 + 2 * pieces])
            at += 2 + 2 * pieces
        for key, value in zip(wholes, values, strict=True):
            self.put(key, value)
        for key, places in zip(patched, patches, strict=True):
            self.put(key, _changed(self.get(key) or b"", places))
        self.advance(fence, following)
        return 1

    def _step(self, keys: Sequence[bytes], args: Sequence[bytes]) -> int:
        expected, following, lease_ms, *values = args
        if not self.fits(keys[0], expected):
            return 0
        if values:
            for key, value in zip(keys[1:], values, strict=True):
                self.put(key, value)
        else:
            self.drop(keys[1:])
        self.put(keys[0], following, int(lease_ms))
        return 1

    def _take(self, keys: Sequence[bytes], args: Sequence[bytes]) -> int:
        mine, lease_ms = args
        found = self.get(keys[0]) or b""
        if b'"builder":"' in found and b'"builder":""' not in found and found != mine:
            return 0
        self.put(keys[0], mine, int(lease_ms))
        return 1

    def _release(self, keys: Sequence[bytes], args: Sequence[bytes]) -> int:
        return self.drop(keys[:1]) if self.fits(keys[0], args[0]) else 0

    def _set(self, key: bytes, value: bytes, *options: bytes) -> bytes | None:
        found = self.get(key)
        if found is None or b"NX" not in options:
            self.put(key, value, int(options[options.index(b"PX") + 1]) if b"PX" in options else None)
        return found if b"GET" in options else b"OK" if found is None or b"NX" not in options else None


def raw(arg: Arg) -> bytes:
    """The bytes of an argument on the wire."""
    return arg if isinstance(arg, bytes) else str(arg).encode()


def _changed(value: bytes, places: Sequence[bytes]) -> bytes:
    """The value, with pieces written at their offsets."""
    whole = bytearray(value)
    for offset, piece in zip(places[::2], places[1::2], strict=True):
        whole[int(offset) : int(offset) + len(piece)] = piece
    return bytes(whole)
