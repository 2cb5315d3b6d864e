"""Writing a partition of the online store anew while services read it and workers run.

    await builder.claim(view.log, 3, marker)         # from here on nothing of the partition is served, and no worker touches it
    await builder.write(view.log, 3, marker, values)
    await builder.finish(view.log, 3, marker, fence)

The claim is a fence like any other, whose `builder` says who writes; every script compares it. It expires unless it is renewed, so a builder
that was killed blocks nobody for long: without a fence feature computation begins the partition from its topic.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidemill.errors import TidemillError
from tidemill.fences import Fence
from tidemill.names import LogName
from tidemill.online_store import OnlineWriter
from tidemill.topics import fence_key

LEASE_MS = 10_000

# Whatever stands there makes way, but not another builder. A fence is JSON as fences.py writes it: `builder` has a value only in a claim.
_CLAIM = """#!lua
local found = redis.call('GET', KEYS[1]) or ''
if string.find(found, '"builder":"[^"]') and found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RENEW = """#!lua
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

_WRITE = """#!lua
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i]) end
return 1
"""

_RELEASE = """#!lua
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class ClaimLost(TidemillError):
    """A builder's claim is gone: it came too late to renew it, or the store lost it."""


class OnlineBuilder(OnlineWriter):
    """Writes partitions that it has claimed. `marker`: the claim, a fence with `builder`, encoded.

    Every method raises what `RedisLink.call` raises; those after `claim` raise ClaimLost when the claim is gone.
    """

    async def claim(self, log: LogName, partition: int, marker: bytes) -> bool:
        """Takes a partition for LEASE_MS; False while another builder has it. After this nobody else writes it or is served from it."""
        return bool(await self._link.script(_CLAIM, [fence_key(self._project, log, partition)], [marker, LEASE_MS]))

    async def renew(self, log: LogName, partition: int, marker: bytes) -> None:
        """Keeps the claim for another LEASE_MS."""
        self._held(await self._link.script(_RENEW, [fence_key(self._project, log, partition)], [marker, LEASE_MS]), log, partition)

    async def empty(self, log: LogName, partition: int, marker: bytes) -> None:
        """Deletes all entities of the partition."""
        self._held(await self.delete_entities(log, partition, marker), log, partition)

    async def write(self, log: LogName, partition: int, marker: bytes, values: Mapping[bytes, bytes]) -> None:
        """Writes whole values."""
        keys = [fence_key(self._project, log, partition), *self._state_keys(log, partition, values)]
        self._held(await self._link.script(_WRITE, keys, [marker, *values.values()]), log, partition)

    async def finish(self, log: LogName, partition: int, marker: bytes, fence: bytes) -> None:
        """Puts the fence that vouches for what was written in the place of the claim."""
        self._held(await self.apply(log, partition, marker, fence, {}), log, partition)

    async def release(self, log: LogName, partition: int, marker: bytes) -> None:
        """Gives an unfinished partition up: it has no fence then, and feature computation begins it from its topic."""
        await self._link.script(_RELEASE, [fence_key(self._project, log, partition)], [marker])

    @staticmethod
    def _held(answer: object, log: LogName, partition: int) -> None:
        if not answer:
            raise ClaimLost(
                f"log {log!r} partition {partition}: the claim is gone, so somebody else may write it by now",
                mend="nothing wrong is served; run it again",
            )


def marker_of(fence: Fence, until: int, token: str) -> bytes:
    """A claim that stands for nothing applied: what is served begins at `until`, and at 1 at least."""
    return msgspec.structs.replace(fence, until=max(1, until), builder=token).encode()
