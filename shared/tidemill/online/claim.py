"""Writing a partition of the online store anew while services read it and workers run.

    claim = Claim(link, project.name, view.log, 3, fence)
    if await claim.take():                       # from here on nothing of the partition is served, and no worker touches it
        await claim.write(values)
        await claim.finish(fence)

What the fence's key holds, step by step (`token` is drawn once for each Claim):

    old fence, or nothing
      | take      unless another builder's claim is there
    claim token.0
      | write, empty, renew: compare with claim n; change entities; put claim n+1; all in one script
    claim token.1, token.2, ...
      | finish                              | release, or LEASE_MS without a step
    final fence, `built` = token          nothing: feature computation begins the partition from its topic

A claim is a fence whose `builder` names the writer; while it is there no worker folds the partition and no reader serves it. Each step
needs the claim of the step before. So if the store loses writes (an older copy, a replica that lags), the next step finds another claim
than its own and fails with ClaimLost: a partition is never finished with a step missing. A claim expires, so a builder that was killed
blocks nobody for long.
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
from tidemill.redis.protocol import Arg, RedisClient

LEASE_MS = 10_000

# Replaces a fence or nothing, but not the claim of another builder. A fence is JSON as kernel/fences.py writes it; only a claim has a
# `builder`.
TAKE = """#!lua
local found = redis.call('GET', KEYS[1]) or ''
if string.find(found, '"builder":"[^"]') and found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

RELEASE = """#!lua
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class ClaimLost(TidemillError):
    """The claim of a builder is gone: it was renewed too late, or the store lost it."""


class Claim:
    """The claim on one partition, once `take` has succeeded. It expires after LEASE_MS without a step. `fence`: an empty one.

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
        """Puts the first claim; False while another builder has one."""
        return bool(await self._link.script(TAKE, [self._fence_key], [self._stands, LEASE_MS]))

    async def renew(self) -> None:
        """Keeps the claim for another LEASE_MS."""
        await self._step([], [])

    async def empty(self) -> None:
        """Deletes all entities of the partition."""
        async for entities in self._writer.entities(self._log, self._partition):
            await self._step(entities, [])

    async def write(self, values: Mapping[bytes, bytes]) -> None:
        """Writes whole values."""
        await self._step(list(values), list(values.values()))

    async def load(self, entities: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values written so far of some entities."""
        async with self._turn:
            fence, values = await self._writer.load(self._log, self._partition, entities)
            self._held(fence == self._stands)
        return values

    async def finish(self, fence: Fence) -> None:
        """Replaces the claim by the final fence, from which readers serve the values. Its `built` keeps the token of this claim."""
        final = msgspec.structs.replace(fence, built=self._token).encode()
        async with self._turn:
            self._held(await self._writer.apply(self._log, self._partition, self._stands, final, {}))

    async def release(self) -> None:
        """Gives an unfinished partition up: no fence is left, and feature computation begins the partition from its topic."""
        async with self._turn:
            await self._link.script(RELEASE, [self._fence_key], [self._stands])

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
