"""The online store: the twin of Redis on a server that forgets, and the writer whose calls to it may go wrong."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from tests.simulation.loop import SimLoop
from tests.simulation.network import Link, Process

from tidemill.errors import StoreUnavailable
from tidemill.names import LogName
from tidemill.online.keys import fence_key, state_key
from tidemill.online.writer import APPLY, OnlineWriter
from tidemill.redis.protocol import Arg
from tidemill.testing.store import Kept, MemoryRedis

Values = dict[bytes, bytes]


class Server(MemoryRedis):
    """The store of one log, in simulated time.

    `changed(partition, by, fence before)` is called after every change by a client, `lost(partition)` after every loss.
    """

    def __init__(self, loop: SimLoop, project: str, log: LogName, partitions: int) -> None:
        super().__init__(lambda: loop.now)
        self.link = Link(StoreUnavailable)
        self.past: list[dict[bytes, Kept]] = [{}]
        self.changed: Callable[[int, str, bytes | None], None] = lambda partition, by, before: None
        self.lost: Callable[[int], None] = lambda partition: None
        self._fence_keys = [fence_key(project, log, number) for number in range(partitions)]
        self._prefixes = [state_key(project, log, number, b"") for number in range(partitions)]

    @property
    def partitions(self) -> range:
        """The numbers of the partitions."""
        return range(len(self._prefixes))

    def fence(self, partition: int) -> bytes | None:
        """A partition's fence."""
        return self.get(self._fence_keys[partition])

    def stored(self, partition: int) -> Values:
        """A partition's entities."""
        prefix = self._prefixes[partition]
        return {key.removeprefix(prefix): kept.value for key, kept in self.data.items() if key.startswith(prefix)}

    def load(self, partition: int, entities: Sequence[bytes]) -> tuple[bytes | None, Values]:
        """A fence and entities, at one moment."""
        stored = self.stored(partition)
        return self.fence(partition), {entity: stored[entity] for entity in entities if entity in stored}

    def answer(self, by: str, lua: str, keys: Sequence[bytes], args: Sequence[Arg]) -> Any:
        """Run a script for a client, and remember what it left: a replica may be as far as this."""
        before = self.get(keys[0]) or b""
        reply = self.run(lua, keys, args)
        if reply == 1:
            self.past.append(dict(self.data))
            self.changed(self._fence_keys.index(keys[0]), by if lua == APPLY else f"{by} claims", before)
        return reply

    def fall_back(self, draw: random.Random) -> None:
        """Fail over to a replica that lagged behind, or lose the tail of the log on disk. All partitions are of one moment."""
        self.link.epoch += 1
        self.data = dict(draw.choice(self.past[-draw.choice((2, 4, 12)) :]))
        self._lose(*self.partitions)

    def flush(self) -> None:
        """Lose everything."""
        self.data.clear()
        self._lose(*self.partitions)

    def delete_fence(self, partition: int) -> None:
        """Somebody deletes it, to have the partition rebuilt."""
        self.data.pop(self._fence_keys[partition], None)
        self._lose(partition)

    def delete_entity(self, partition: int, entity: bytes) -> None:
        """Somebody deletes an entity by hand; nothing says so."""
        self.data.pop(self._prefixes[partition] + entity, None)
        self._lose(partition)

    def _lose(self, *partitions: int) -> None:
        self.past = [dict(self.data)]
        for partition in partitions:
            self.lost(partition)


class SimLink:
    """A process's client of the store: each command and script is one request, of which any part may get lost."""

    def __init__(self, process: Process, server: Server) -> None:
        self.process = process
        self.server = server

    async def mget(self, keys: Iterable[Arg]) -> list[bytes | None]:
        """One MGET."""
        found: list[bytes | None] = await self.process.ask(self.server.link, self.server.get_all, list(keys))
        return found

    async def script(self, lua: str, keys: Sequence[bytes], args: Sequence[Arg]) -> Any:
        """One script."""
        return await self.process.ask(self.server.link, self.server.answer, self.process.name, lua, keys, args)

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """One SCAN."""
        yield await self.process.ask(self.server.link, self.server.matching, pattern)

    async def everywhere(self, *args: Arg) -> list[Any]:
        """What never changes is not asked for."""
        return await self.server.everywhere(*args)


class SimWriter(OnlineWriter):
    """The writer of one process, which its claims name."""

    def __init__(self, process: Process, server: Server, project: str) -> None:
        super().__init__(SimLink(process, server), project)  # type: ignore[arg-type]
        self._token = process.name
