"""Writing a partition of the online store anew while services read it and workers run.

    claim = Claim(link, project.name, view.log, 3, fence)
    if await claim.take():                       # from here on nothing of the partition is served, and no worker touches it
        await claim.write(values)
        await claim.finish(fence)

The claim stands in the fence's place: a fence whose `builder` says who writes. Every step compares it and puts the next one there, so a step is only
taken on top of all those before it, whatever a store that falls back may have forgotten. It expires unless it is renewed, so a builder that was
killed blocks nobody for long: without a fence feature computation begins the partition from its topic.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence

import msgspec

from tidemill.errors import TidemillError
from tidemill.kernel.fences import Fence
from tidemill.names import LogName
from tidemill.online.keys import fence_key
from tidemill.online.writer import OnlineWriter
from tidemill.redis.client import RedisClient
from tidemill.redis.link import Arg

LEASE_MS = 10_000

# Whatever stands there makes way, but not another builder. A fence is JSON as kernel/fences.py writes it: `builder` has a value only in a claim.
_TAKE = """#!lua
local found = redis.call('GET', KEYS[1]) or ''
if string.find(found, '"builder":"[^"]') and found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RELEASE = """#!lua
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class ClaimLost(TidemillError):
    """A builder's claim is gone: it came too late to renew it, or the store lost it."""


class Claim:
    """A partition that is being written, once `take` has succeeded; it expires after LEASE_MS without a step. `fence`: an empty one.

    Every method raises what `RedisClient.call` raises, and ClaimLost when the claim is gone.
    """

    def __init__(self, link: RedisClient, project: str, log: LogName, partition: int, fence: Fence) -> None:
        self._link, self._log, self._partition = link, log, partition
        self._writer = OnlineWriter(link, project)
        self._fence_key = fence_key(project, log, partition)
        self._fence, self._token, self._steps = msgspec.structs.replace(fence, until=max(1, fence.until)), secrets.token_hex(8), 0
        self._turn = asyncio.Lock()
        self._stands = self._numbered()

    def _numbered(self) -> bytes:
        return msgspec.structs.replace(self._fence, builder=f"{self._token}.{self._steps}").encode()

    async def take(self) -> bool:
        """Takes the partition; False while another builder has it."""
        return bool(await self._link.script(_TAKE, [self._fence_key], [self._stands, LEASE_MS]))

    async def renew(self) -> None:
        """Keeps it for another LEASE_MS."""
        await self._step([], [])

    async def empty(self) -> None:
        """Deletes all entities of the partition."""
        async for entities in self._writer.entities(self._log, self._partition):
            await self._step(entities, [])

    async def write(self, values: Mapping[bytes, bytes]) -> None:
        """Writes whole values."""
        await self._step(list(values), list(values.values()))

    async def load(self, entities: Sequence[bytes]) -> dict[bytes, bytes]:
        """What was written of some entities."""
        async with self._turn:
            fence, values = await self._writer.load(self._log, self._partition, entities)
            self._held(fence == self._stands)
        return values

    async def finish(self, fence: Fence) -> None:
        """Puts the fence that vouches for what was written in the place of the claim; it carries this claim's token for good."""
        final = msgspec.structs.replace(fence, built=self._token).encode()
        async with self._turn:
            self._held(await self._writer.apply(self._log, self._partition, self._stands, final, {}))

    async def release(self) -> None:
        """Gives an unfinished partition up: it has no fence then, and feature computation begins it from its topic."""
        async with self._turn:
            await self._link.script(_RELEASE, [self._fence_key], [self._stands])

    async def _step(self, entities: Sequence[bytes], values: Sequence[Arg]) -> None:
        async with self._turn:
            before = self._stands
            self._steps += 1
            self._stands = self._numbered()
            self._held(await self._writer.step(self._log, self._partition, before, self._stands, LEASE_MS, entities, values))

    def _held(self, answer: object) -> None:
        if not answer:
            raise ClaimLost(
                f"log {self._log!r} partition {self._partition}: the claim is gone, so somebody else may write it by now",
                mend="nothing wrong is served; run it again",
            )
