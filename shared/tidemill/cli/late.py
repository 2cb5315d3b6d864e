"""What `tidemill status` says about events that came too late."""

from __future__ import annotations

import asyncio
import importlib.util
from collections import Counter

from tidemill.declarations.project import Project, load_project
from tidemill.errors import TidemillError
from tidemill.local.addresses import Addresses
from tidemill.runtime.settings import KafkaSettings

_SECONDS = 5.0


def late_line(at: Addresses) -> str | None:
    """How many events the views in force have refused, in all and by view; None on a stack that folds none."""
    if not (at.project and at.kafka and at.redis_url and "features" in at.urls) or importlib.util.find_spec("hiredis") is None:
        return None
    try:
        late = asyncio.run(_late(at, load_project(at.project)))
    except (TidemillError, TimeoutError) as error:
        return f"events too late: not known ({getattr(error, 'message', None) or f'no answer within {_SECONDS:g} s'})"
    if not late:
        return "events too late: 0"
    views = ", ".join(f"{view} {count:,}" for view, count in late.most_common())
    return f"events too late: {late.total():,} ({views}); `tidemill dead-letters` shows them"


async def _late(at: Addresses, declared: Project) -> Counter[str]:
    from tidemill.online.late import late_events
    from tidemill.redis.client import redis_client
    from tidemill.streams.following import read_in_force

    async with asyncio.timeout(_SECONDS):
        now = await read_in_force(KafkaSettings(bootstrap_servers=at.kafka), declared)
        async with redis_client(at.redis_url, timeout_seconds=_SECONDS) as link:
            return await late_events(link, now.project.name, (view.log for view in now.project.views.values()))
