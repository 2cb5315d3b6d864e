"""Writing the online store: one packed value per entity, one fence per partition of a view's log, changed together or not at all.

    writer = OnlineWriter(link, project.name)
    fence, values = await writer.load(shop_sales.log, 3, [b"north", b"south"])
    applied = await writer.apply(origin_delays.log, 3, expected=fence, fence=new_fence, values=new_values)

All keys of a partition share one cluster slot. A write sets whole values, or bytes at fixed places, and never adds to a number: so applying
the same batch twice is harmless.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count

import msgspec

from tidemill.errors import CorruptState, SlotUnavailable
from tidemill.kernel.fences import Fence
from tidemill.kernel.packed import Patch
from tidemill.names import LogName, parse_log
from tidemill.online.keys import fence_key, state_key
from tidemill.redis.protocol import Arg, RedisClient

# Redis runs a script alone but does not roll it back. So its steps are:
# 1. The line `#!lua`: Redis refuses the whole script when it is out of memory, cannot write its disk, or is a replica.
# 2. Compare the fence with the expected one; if it differs, return it and write nothing.
# 3. Check the length of every value that changes in place; if one differs, return its key and write nothing.
# 4. Write whole values (MSET), then pieces (SETRANGE). After steps 1 and 3 these cannot fail. Lua unpacks at most 8,000 values at once.
# 5. Write the new fence last.
# KEYS: the fence, the keys of whole values, the keys of values that change in place.
# ARGV: expected fence, new fence, number of whole values, these values; then for each key that changes in place its length, its number of
# pieces, and the offset and bytes of each piece.
APPLY = """#!lua
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end
local wholes = tonumber(ARGV[3])
local at = wholes + 4
for k = wholes + 2, #KEYS do
  if redis.call('STRLEN', KEYS[k]) ~= tonumber(ARGV[at]) then return {KEYS[k]} end
  at = at + 2 + 2 * tonumber(ARGV[at + 1])
end
for first = 2, wholes + 1, 1000 do
  local pairs = {}
  for i = first, math.min(first + 999, wholes + 1) do
    pairs[#pairs + 1] = KEYS[i]
    pairs[#pairs + 1] = ARGV[i + 2]
  end
  redis.call('MSET', unpack(pairs))
end
at = wholes + 4
for k = wholes + 2, #KEYS do
  local last = at + 1 + 2 * tonumber(ARGV[at + 1])
  for p = at + 2, last, 2 do redis.call('SETRANGE', KEYS[k], ARGV[p], ARGV[p + 1]) end
  at = last + 1
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

# One step of writing a partition anew, from one claim to the next: with values it sets the entities, without values it deletes them. Each
# step has another claim, so a step succeeds only on top of all steps before it, even if the store has lost writes in between. A claim
# expires, because its owner may be dead.
STEP = """#!lua
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  if #ARGV > 3 then redis.call('SET', KEYS[i], ARGV[i + 2]) else redis.call('UNLINK', KEYS[i]) end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

CLAIM_MS = 5_000


class OnlineWriter:
    """Reads and changes the state of partitions. Every method raises what `RedisLink.call` raises."""

    def __init__(self, link: RedisClient, project: str) -> None:
        self._link = link
        self._project = project
        self._token = secrets.token_hex(8)
        self._claims = count()

    async def fences(self, partitions: Sequence[tuple[LogName, int]]) -> Sequence[bytes | SlotUnavailable | None]:
        """The fences of (log, partition)s as they are stored; None where nothing has been applied.

        In a cluster, a fence that cannot be read now is replaced by the error.
        """
        keys = [fence_key(self._project, *partition) for partition in partitions]
        with contextlib.suppress(SlotUnavailable):
            return await self._link.mget(keys)
        return [await self._fence(key) for key in keys]

    async def _fence(self, key: bytes) -> bytes | SlotUnavailable | None:
        try:
            fence: bytes | None = await self._link.call(b"GET", key)
        except SlotUnavailable as error:
            return error
        return fence

    async def load(self, log: LogName, partition: int, entities: Sequence[bytes]) -> tuple[bytes | None, dict[bytes, bytes]]:
        """The fence and the stored values of entities, read by one command; an entity that is not stored is left out."""
        fence, *values = await self._link.mget([fence_key(self._project, log, partition), *self._state_keys(log, partition, entities)])
        return fence, {entity: value for entity, value in zip(entities, values, strict=True) if value is not None}

    async def apply(
        self, log: LogName, partition: int, expected: bytes | None, fence: bytes, values: Mapping[bytes, bytes | Patch]
    ) -> bool:
        """Writes entities and the new fence if the stored fence is `expected` (None: absent); else changes nothing and returns False.

        Returns True also when the new fence is stored already: the reply to an earlier attempt was lost. After an error it is unknown
        whether the batch was applied: call again with the same arguments. Raises CorruptState, and changes nothing, when a value to change
        in place has not the length that it had.
        """
        prefix, keys, wholes, patches = state_key(self._project, log, partition, b""), list[bytes](), list[Arg](), list[Arg]()
        patched = list[bytes]()
        for entity, value in values.items():
            if isinstance(value, bytes):
                keys.append(prefix + entity)
                wholes.append(value)
            else:
                patched.append(prefix + entity)
                patches += value.length, len(value.pieces)
                for piece in value.pieces:
                    patches += piece
        args: list[Arg] = [expected or b"", fence, len(wholes), *wholes, *patches]
        found = await self._link.script(APPLY, [fence_key(self._project, log, partition), *keys, *patched], args)
        if isinstance(found, list):
            parsed = parse_log(log)
            what = f"log {log!r} partition {partition}, entity {found[0].removeprefix(prefix)!r}"
            raise CorruptState(
                f"{what}: the stored value was deleted or altered by hand", mend=f"run: tidemill rebuild {parsed.view if parsed else log}"
            )
        return bool(found in (1, fence))

    async def begin(self, log: LogName, partition: int, fence: bytes) -> None:
        """Prepares a partition without a fence for folding from the beginning: deletes its old entities, then sets the fence.

        Until then claims stand in the place of the fence. When another worker was faster it stops, and the next `apply` gives False.
        """
        claim = await self._claim(log, partition, fence, b"", [])
        async for entities in self.entities(log, partition):
            claim = claim and await self._claim(log, partition, fence, claim, entities)
        if claim:
            await self.apply(log, partition, claim, fence, {})

    async def _claim(self, log: LogName, partition: int, fence: bytes, claim: bytes, entities: Sequence[bytes]) -> bytes | None:
        """Deletes entities and replaces a claim (empty: no fence) by the next one, and returns that. None: another fence is there."""
        following = msgspec.structs.replace(Fence.decode(fence), builder=f"{self._token}.{next(self._claims)}").encode()
        return following if await self.step(log, partition, claim, following, CLAIM_MS, entities) else None

    async def step(
        self,
        log: LogName,
        partition: int,
        claim: bytes,
        following: bytes,
        lease_ms: int,
        entities: Sequence[bytes],
        values: Sequence[Arg] = (),
    ) -> bool:
        """Writes whole values of entities, or without values deletes them, and replaces `claim` by `following`, which lasts `lease_ms`.

        Returns False, and changes nothing, when the store does not hold `claim`.
        """
        keys = [fence_key(self._project, log, partition), *self._state_keys(log, partition, entities)]
        return bool(await self._link.script(STEP, keys, [claim, following, lease_ms, *values]))

    async def entities(self, log: LogName, partition: int) -> AsyncIterator[list[bytes]]:
        """The stored entities of a partition, in portions. An entity may come twice; one added during the scan may be missing."""
        prefix = state_key(self._project, log, partition, b"")
        async for keys in self._link.scan(prefix + b"*"):
            if keys:
                yield [key.removeprefix(prefix) for key in keys]

    async def eviction_policy(self) -> str:
        """The server's `maxmemory-policy`; in a cluster the first policy other than noeviction among the primaries that answer."""
        infos = [
            dict(line.split(b":", 1) for line in info.splitlines() if b":" in line)
            for info in await self._link.everywhere(b"INFO", b"memory")
        ]
        policies = [info.get(b"maxmemory_policy", b"unknown").decode() for info in infos]
        return next((policy for policy in policies if policy != "noeviction"), "noeviction")

    def keys(self, log: LogName, partition: int, entity: bytes) -> tuple[bytes, bytes]:
        """The Redis keys of a partition's fence and of an entity."""
        return fence_key(self._project, log, partition), state_key(self._project, log, partition, entity)

    def _state_keys(self, log: LogName, partition: int, entities: Sequence[bytes] | Mapping[bytes, bytes]) -> list[bytes]:
        prefix = state_key(self._project, log, partition, b"")
        return [prefix + entity for entity in entities]
