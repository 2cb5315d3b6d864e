"""The audit: for every view and partition, state(Redis) = fold(offline rows below Redis' fence), byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tidemill.declarations.project import Project
from tidemill.errors import UnknownView
from tidemill.offline.store import OfflineStore
from tidemill.online.keys import STATE_KEYS, state_key
from tidemill.proof.counterexample import Counterexample
from tidemill.proof.partition_audit import AuditReport, Mismatch, PartitionAudit
from tidemill.redis.protocol import RedisClient


async def audit(
    project: Project,
    store: OfflineStore,
    link: RedisClient,
    views: Sequence[str] = (),
    note: Callable[[str], None] = lambda _: None,
    wait_seconds: float = 60,
) -> AuditReport:
    """Compares every entity of the views (of all views when none is named). Calls `note` with lines of progress.

    Raises UnknownView, and OfflineUnavailable when the offline store does not reach the online fence within `wait_seconds`.
    """
    for name in views:
        if name not in project.views:
            raise UnknownView(name, list(project.views))
    report = AuditReport()
    keys = await _keys_by_partition(link, project)
    for view in [project.views[name] for name in views or project.views]:
        note(f"{view.name}: {sum(len(keys.get((view.name, p), ())) for p in range(view.partitions)):,} entities")
        for partition in range(view.partitions):
            auditor = PartitionAudit(project.name, view, partition, store, link, wait_seconds)
            await auditor.whole(report, keys.get((view.name, partition), ()))
    return report


async def _keys_by_partition(link: RedisClient, project: Project) -> dict[tuple[str, int], set[bytes]]:
    """The entities of the online store by view and partition, from one scan of its keys."""
    found: dict[tuple[str, int], set[bytes]] = {}
    places = {
        state_key(project.name, view.log, partition, b""): (view.name, partition)
        for view in project.views.values()
        for partition in range(view.partitions)
    }
    async for keys in link.scan(STATE_KEYS):
        for key in keys:
            tag, _, entity = key.partition(b"}")
            place = places.get(tag + b"}")
            if place is not None:
                found.setdefault(place, set()).add(entity)
    return found


def counterexample(
    project: Project, store: OfflineStore, link: RedisClient, found: Mismatch, last: int | None, wait_seconds: float = 60
) -> Counterexample:
    """The counter-example of a mismatch that names an entity: its last rows one by one (None: all), and where the store differs."""
    return PartitionAudit(project.name, project.views[found.view], found.partition, store, link, wait_seconds).counterexample(found, last)
