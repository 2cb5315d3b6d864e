"""The online store as its writer sees it: one packed value per entity, one fence per partition of a view, changed together or not at all.

    writer = OnlineWriter(link, project.name)
    fence, values = await writer.load("shop_sales", 3, [b"north", b"south"])
    applied = await writer.apply("origin_delays", 3, expected=fence, fence=new_fence, values=new_values)

All keys of a partition share one cluster slot. Only whole, absolute values are written, so applying the same batch twice is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tidemill.redis_link import RedisLink
from tidemill.topics import fence_key, state_key

# A script is isolated but not rolled back. So: the first line lets Redis refuse the whole script when it is out of memory, cannot write
# its disk or is a replica; SET of whole values cannot fail half-way; the fence comes last. Lua unpacks at most 8,000 values at once.
_APPLY = """#!lua
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end
for first = 2, #KEYS, 1000 do
  local pairs = {}
  for i = first, math.min(first + 999, #KEYS) do
    pairs[#pairs + 1] = KEYS[i]
    pairs[#pairs + 1] = ARGV[i + 1]
  end
  redis.call('MSET', unpack(pairs))
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

# Another worker may have begun the partition meanwhile; then its values stay.
_CLEAR = """#!lua
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
"""


class OnlineWriter:
    """Reads and changes the state of partitions. Every method raises what `RedisLink.call` raises."""

    def __init__(self, link: RedisLink, project: str) -> None:
        self._link = link
        self._project = project

    async def fences(self, partitions: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """The fences of (view, partition)s as they are stored; None where nothing has been applied."""
        fences: list[bytes | None] = await self._link.call(b"MGET", *(fence_key(self._project, *partition) for partition in partitions))
        return fences

    async def load(self, view: str, partition: int, entities: Sequence[bytes]) -> tuple[bytes | None, dict[bytes, bytes]]:
        """The fence and the stored values of entities, read in one command; an entity that is not stored is left out."""
        fence, *values = await self._link.call(
            b"MGET", fence_key(self._project, view, partition), *self._state_keys(view, partition, entities)
        )
        return fence, {entity: value for entity, value in zip(entities, values, strict=True) if value is not None}

    async def apply(self, view: str, partition: int, expected: bytes | None, fence: bytes, values: Mapping[bytes, bytes]) -> bool:
        """Writes entities and the new fence if the stored fence is `expected` (None: absent); else changes nothing and returns False.

        True also when the new fence is there already: an earlier attempt whose reply was lost. After an error it is unknown whether
        the batch was applied: ask again with the same arguments.
        """
        keys = [fence_key(self._project, view, partition), *self._state_keys(view, partition, values)]
        found = await self._link.script(_APPLY, keys, [expected or b"", fence, *values.values()])
        return bool(found in (1, fence))

    async def begin(self, view: str, partition: int, fence: bytes) -> None:
        """Makes a partition without a fence ready to be folded from the beginning: deletes what old entities it has, then sets the fence.

        Nothing happens when another worker was faster; the next `apply` will tell.
        """
        key, pattern, cursor = fence_key(self._project, view, partition), state_key(self._project, view, partition, b"*"), b"0"
        while True:
            cursor, old = await self._link.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", 1000)
            if old and not await self._link.script(_CLEAR, [key, *old], []):
                return
            if cursor == b"0":
                break
        await self._link.call(b"SET", key, fence, b"NX")

    async def eviction_policy(self) -> str:
        """The server's `maxmemory-policy`."""
        info: bytes = await self._link.call(b"INFO", b"memory")
        return next((line[17:].decode() for line in info.splitlines() if line.startswith(b"maxmemory_policy:")), "unknown")

    def _state_keys(self, view: str, partition: int, entities: Sequence[bytes] | Mapping[bytes, bytes]) -> list[bytes]:
        prefix = state_key(self._project, view, partition, b"")
        return [prefix + entity for entity in entities]
