"""How many events came too late, as the fences count them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tidemill.declarations import FeatureView
from tidemill.kernel.fences import Fence
from tidemill.names import version_name
from tidemill.online.keys import fence_key
from tidemill.redis.protocol import RedisClient


async def late_events(link: RedisClient, project: str, views: Iterable[FeatureView]) -> Counter[str]:
    """View, with its version -> the events that it refused because they were too late: each is a dead letter `late`. Views without any are absent.

    Raises StoreUnavailable, StoreError.
    """
    keys = {
        fence_key(project, view.log, partition): view.name if view.version == 1 else version_name(view.name, view.version)
        for view in views
        for partition in range(view.partitions)
    }
    found: Counter[str] = Counter()
    for name, fence in zip(keys.values(), await link.mget(keys) if keys else (), strict=True):
        if fence is not None and (late := Fence.decode(fence).late):
            found[name] += late
    return found
