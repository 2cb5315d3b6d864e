"""Events that came too late are counted by the fences, over all partitions and views."""

from __future__ import annotations

import pytest
from tests.demo_state import HOUR_MS, NOW_MS, Store, demo, trip

from tidemill.online.late import late_events
from tidemill.redis.link import RedisLink

pytestmark = pytest.mark.integration


async def test_each_view_has_its_own(redis_url: str, store: Store) -> None:
    """What one view refuses another one may take; a view without any, and partitions without a fence, are not told."""
    logs = [view.log for view in demo().views.values()]
    async with RedisLink(redis_url) as link:
        assert await late_events(link, "demo", logs) == {}
        early = [trip(NOW_MS - 5_000 * HOUR_MS, zone, driver=driver) for driver, zone in enumerate(("north", "south", "north", "west"))]
        store.apply([trip(NOW_MS, zone, driver=7) for zone in ("north", "south", "east")] + early)
        found = await late_events(link, "demo", logs)
        assert found["zones"] == 3
        assert "drivers" not in found
        assert await late_events(link, "demo", []) == {}
        assert await late_events(link, "another", logs) == {}
