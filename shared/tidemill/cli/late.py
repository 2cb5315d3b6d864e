"""What `tidemill status` says about events that came too late."""

from __future__ import annotations

import importlib.util
from collections import Counter

from tidemill.cli.soon import SECONDS, said_soon
from tidemill.declarations.project import Project, load_project
from tidemill.local.addresses import Addresses
from tidemill.runtime.settings import KafkaSettings


def late_line(at: Addresses) -> str | None:
    """How many events the views in force have refused, in all and by view; None on a stack that folds none, or of a project without views."""
    if not ((spec := at.project) and at.kafka and at.redis_url and "features" in at.urls) or importlib.util.find_spec("hiredis") is None:
        return None
    declared = load_project(spec)
    return said_soon("events too late", lambda: _late(at, declared), _counted) if declared.views else None


def _counted(late: Counter[str]) -> str:
    if not late:
        return "0"
    views = ", ".join(f"{view} {count:,}" for view, count in late.most_common())
    return f"{late.total():,} ({views}); `tidemill dead-letters` shows them"


async def _late(at: Addresses, declared: Project) -> Counter[str]:
    from tidemill.online.late import late_events
    from tidemill.redis.client import redis_client
    from tidemill.streams.following import read_in_force

    now = await read_in_force(KafkaSettings(bootstrap_servers=at.kafka), declared)
    async with redis_client(at.redis_url, timeout_seconds=SECONDS) as link:
        return await late_events(link, now.project.name, (view.log for view in now.project.views.values()))
