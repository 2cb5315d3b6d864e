"""The online store: what its scripts do, in Python, on a server that forgets, and the writer whose calls to it may go wrong."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from tests.simulation.loop import SimLoop
from tests.simulation.network import Link, Process

from tidemill.errors import CorruptState, StoreUnavailable
from tidemill.kernel.packed import Patch
from tidemill.names import LogName
from tidemill.online.keys import fence_key, state_key
from tidemill.online.writer import _STEP, OnlineWriter

Values = dict[bytes, bytes]
CLAIM_SECONDS = 2.0


class Server:
    """Fences and entities by partition, one request after the other. Dicts of entities are never changed, only replaced.

    `changed(partition, by, fence before)` is called after every change by a client, `lost(partition)` after every loss.
    """

    def __init__(self, loop: SimLoop, project: str, log: LogName, partitions: int) -> None:
        self.loop = loop
        self.fences: dict[int, bytes] = {}
        self.values: dict[int, Values] = {number: {} for number in range(partitions)}
        self.link = Link(StoreUnavailable)
        self._expires: dict[bytes, float] = {}  # when a claim expires, simulated seconds
        self.past: list[tuple[dict[int, bytes], dict[int, Values]]] = [({}, dict(self.values))]
        self.changed: Callable[[int, str, bytes | None], None] = lambda partition, by, before: None
        self.lost: Callable[[int], None] = lambda partition: None
        self.fence_keys = {fence_key(project, log, number): number for number in range(partitions)}
        self.prefixes = {number: state_key(project, log, number, b"") for number in range(partitions)}

    def apply(self, by: str, partition: int, expected: bytes, fence: bytes, values: Mapping[bytes, bytes | Patch]) -> Any:
        """What `_APPLY` does: 1, or the fence found, or the entity that is not as long as it should be."""
        found = self.fences.get(partition, b"")
        if not self.fits(found, expected):
            return found
        stored = self.values[partition]
        for entity, value in values.items():
            if isinstance(value, Patch) and len(stored.get(entity, b"")) != value.length:
                return [entity]
        self.values[partition] = stored | {entity: self.written(stored, entity, value) for entity, value in values.items()}
        self.fences[partition] = self.next_fence(found, fence)
        self.keep()
        self.changed(partition, by, found)
        return 1

    def fits(self, found: bytes, expected: bytes) -> bool:
        """The comparison."""
        return found == expected

    def next_fence(self, found: bytes, fence: bytes) -> bytes:
        """SET of the fence."""
        return fence

    def written(self, stored: Values, entity: bytes, value: bytes | Patch) -> bytes:
        """SET of a whole value, or SETRANGE of its pieces."""
        if isinstance(value, bytes):
            return value
        whole = bytearray(stored[entity])
        for offset, piece in value.pieces:
            whole[offset : offset + len(piece)] = piece
        return bytes(whole)

    def load(self, partition: int, entities: Sequence[bytes]) -> tuple[bytes | None, Values]:
        """MGET of the fence and entities."""
        stored = self.values[partition]
        return self.fences.get(partition), {entity: stored[entity] for entity in entities if entity in stored}

    def claim(self, by: str, partition: int, expected: bytes, following: bytes, entities: Sequence[bytes]) -> int:
        """What `_STEP` does without values; the claim expires."""
        if not self.fits(self.fences.get(partition, b""), expected):
            return 0
        self.values[partition] = self.cleared(self.values[partition], entities)
        self.fences[partition] = following
        self._expires[following] = self.loop.now + CLAIM_SECONDS
        self.loop.call_at(self._expires[following], self._expire, partition, following)
        self.keep()
        self.changed(partition, f"{by} claims", expected)
        return 1

    def cleared(self, stored: Values, entities: Sequence[bytes]) -> Values:
        """UNLINK of entities."""
        return {entity: value for entity, value in stored.items() if entity not in entities}

    def _expire(self, partition: int, claim: bytes) -> None:
        if self.fences.get(partition) == claim:
            del self.fences[partition]

    def keep(self) -> None:
        """Remember this state: a replica may be as far as this."""
        self.past.append((dict(self.fences), dict(self.values)))

    def fall_back(self, draw: random.Random) -> None:
        """Fail over to a replica that lagged behind, or lose the tail of the log on disk. All partitions are of one moment."""
        self.link.epoch += 1
        fences, values = draw.choice(self.past[-draw.choice((2, 4, 12)) :])
        self.fences, self.values = dict(fences), dict(values)
        for partition, fence in fences.items():
            if fence in self._expires:
                self.loop.call_at(max(self._expires[fence], self.loop.now), self._expire, partition, fence)
        self._lose(*self.values)

    def flush(self) -> None:
        """Lose everything."""
        self.fences.clear()
        self.values = {number: {} for number in self.values}
        self._lose(*self.values)

    def delete_fence(self, partition: int) -> None:
        """Somebody deletes it, to have the partition rebuilt."""
        self.fences.pop(partition, None)
        self._lose(partition)

    def delete_entity(self, partition: int, entity: bytes) -> None:
        """Somebody deletes an entity by hand; nothing says so."""
        self.values[partition] = {key: value for key, value in self.values[partition].items() if key != entity}
        self._lose(partition)

    def _lose(self, *partitions: int) -> None:
        self.past = [(dict(self.fences), dict(self.values))]
        for partition in partitions:
            self.lost(partition)


class SimLink:
    """The script with which `OnlineWriter.begin` makes a partition ready."""

    def __init__(self, process: Process, server: Server) -> None:
        self._process = process
        self._server = server

    async def script(self, text: str, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        """One step of that."""
        assert text == _STEP
        server, name, (expected, following, _) = self._server, self._process.name, args
        partition = server.fence_keys[keys[0]]
        entities = [key.removeprefix(server.prefixes[partition]) for key in keys[1:]]
        return await self._process.ask(server.link, server.claim, name, partition, expected, following, entities)


class SimWriter(OnlineWriter):
    """The writer of one process: one method per command or script that the server knows; what is made of them is what production runs."""

    def __init__(self, process: Process, server: Server, project: str) -> None:
        super().__init__(SimLink(process, server), project)  # type: ignore[arg-type]
        self._token = process.name
        self.process = process
        self.server = server

    async def eviction_policy(self) -> str:
        """As it must be."""
        return "noeviction"

    async def fences(self, partitions: Sequence[tuple[LogName, int]]) -> list[bytes | None]:
        """One MGET."""
        found: list[bytes | None] = await self.process.ask(
            self.server.link, lambda: [self.server.fences.get(number) for _, number in partitions]
        )
        return found

    async def entities(self, log: LogName, partition: int) -> AsyncIterator[list[bytes]]:
        """One SCAN."""
        yield await self.process.ask(self.server.link, lambda: list(self.server.values[partition]))

    async def load(self, log: LogName, partition: int, entities: Sequence[bytes]) -> tuple[bytes | None, Values]:
        """One MGET."""
        found: tuple[bytes | None, Values] = await self.process.ask(self.server.link, self.server.load, partition, entities)
        return found

    async def apply(
        self, log: LogName, partition: int, expected: bytes | None, fence: bytes, values: Mapping[bytes, bytes | Patch]
    ) -> bool:
        """One script."""
        found = await self.process.ask(self.server.link, self.server.apply, self.process.name, partition, expected or b"", fence, values)
        if isinstance(found, list):
            raise CorruptState(f"entity {found[0]!r} was altered")
        return bool(found in (1, fence))
