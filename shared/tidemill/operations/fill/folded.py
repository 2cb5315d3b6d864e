"""Waiting until both stores have a log: feature computation has folded it, and the offline store mirrors it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from tidemill.declarations import FeatureView
from tidemill.kernel.fences import position
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore, counter_name
from tidemill.online.keys import fence_key
from tidemill.redis.protocol import RedisClient
from tidemill.streams.topics import view_topic

_POLL_SECONDS = 0.2

Stores = Callable[[int, int, int], None]
"""Called with the records that the online and the offline store have, and those that they should have."""


async def wait_folded(
    project: str, view: FeatureView, ends: Mapping[int, int], store: OfflineStore, link: RedisClient, told: Stores
) -> None:
    """Returns once both stores have all records of a view's log below `ends`, by partition. It waits for ever.

    Raises StoreUnavailable, StoreError, OfflineUnavailable.
    """
    wanted = sum(ends.values())
    while True:
        keys = [fence_key(project, view.log, partition) for partition in ends]
        online = dict(zip(ends, map(position, await link.mget(keys)), strict=True))
        offline = await asyncio.to_thread(_mirrored, store, project, view, list(ends))
        have = [sum(min(end, found[partition]) for partition, end in ends.items()) for found in (online, offline)]
        told(have[0], have[1], wanted)
        if min(have) >= wanted:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _mirrored(store: OfflineStore, project: str, view: FeatureView, partitions: list[int]) -> dict[int, int]:
    topic = view_topic(project, view.log)
    snapshot = store.find(view_folder(view.log))
    return {partition: 0 if snapshot is None else snapshot.counter(counter_name(topic, partition)) for partition in partitions}
