"""How many events came too late, as the fences count them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tidemill.kernel.fences import Fence
from tidemill.names import LogName, parse_log, version_name
from tidemill.online.keys import fence_key
from tidemill.redis.protocol import RedisClient


async def late_events(link: RedisClient, project: str, logs: Iterable[LogName]) -> Counter[str]:
    """View, with its version from the second on -> the events that it refused because they were too late: each is a dead letter `late`.
    Views without any are absent.

    Raises StoreUnavailable, StoreError.
    """
    keys: dict[bytes, str] = {}
    for log in logs:
        parts = parse_log(log)
        assert parts is not None, log
        name = parts.view if parts.version == 1 else version_name(parts.view, parts.version)
        keys |= {fence_key(project, log, partition): name for partition in range(parts.partitions)}
    found: Counter[str] = Counter()
    for name, fence in zip(keys.values(), await link.mget(keys) if keys else (), strict=True):
        if fence is not None and (late := Fence.decode(fence).late):
            found[name] += late
    return found
