"""Feature computation and the offline writer follow the catalogue: a version is folded and mirrored once it is handed over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.features.rig import Rig, until
from tests.logged import BUSY, faults
from tests.patience import PATIENCE_SECONDS

from tidemill import FeatureView, count, sum
from tidemill.catalogue.definitions import NOTHING, Definitions, ViewVersion
from tidemill.catalogue.plan import Surroundings, plan_of
from tidemill.declarations.written import write_event, write_view
from tidemill.errors import UnknownTable
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.kernel.fences import position
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.online.keys import fence_key
from tidemill.streams.catalogue_log import append_definitions
from tidemill.streams.following import in_force
from tidemill.streams.topics import topic_specs, view_topic

pytestmark = pytest.mark.integration

LAG = "tidemill_features_lag_records"


def reached(rig: Rig, root: str) -> bool:
    """Whether Redis and the offline store have all that the logs of the rig's project hold."""
    store = OfflineStore(root)
    ends = asyncio.run(offset_ranges(rig.settings, *rig.topics()))
    for view in rig.project.views.values():
        try:
            stored = store.snapshot(view_folder(view.log)).positions
        except UnknownTable:
            return False
        for partition in range(view.partitions):
            end = next(found.end for target, found in ends.items() if target == (view_topic(rig.name, view.log), partition))
            folded = position(rig.store.get(fence_key(rig.name, view.log, partition)))  # type: ignore[arg-type]
            if folded != end or stored.get(partition, 0) != end:
                return False
    return True


def all_reached(rig: Rig, root: str) -> None:
    """Assert that both stores have everything soon."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached(rig, root):
        assert time.monotonic() < deadline, [worker.tail for worker in rig.workers]
        time.sleep(0.5)


def test_a_version_is_folded_and_mirrored_once_it_is_handed_over(rig: Rig, tmp_path: Path) -> None:
    """The same processes go on: nothing of it while it is filled, all of it afterwards, and the first version beside it."""
    root = str(tmp_path / "offline")
    asyncio.run(ensure_topics(rig.settings, topic_specs(rig.project)))
    rig.worker()
    rig.worker("tidemill_offline", TIDEMILL_OFFLINE=root)
    rig.produce(100)
    all_reached(rig, root)
    declared = rig.project
    second = FeatureView("by_card", declared.events["paid"], "card", [count(), sum("amount")], windows=["1h", "3h"], partitions=2)
    views = tuple(ViewVersion(write_view(view), 1, {}) for view in declared.views.values())
    events = tuple(write_event(event) for event in declared.events.values())
    one = Definitions(1, 5, events, (*views, ViewVersion(write_view(second), 2)), {"by_card": 1, "by_shop": 1})
    handed = one.handed_over("by_card", 2, {}, 6)
    asyncio.run(append_definitions(rig.settings, rig.name, one))
    rig.project = in_force(handed, declared).project
    rig.traffic._project = rig.project
    rig.produce(100)
    log = rig.project.views["by_card@v2"].log
    time.sleep(3)
    assert rig.store.get(fence_key(rig.name, log, 0)) is None
    asyncio.run(append_definitions(rig.settings, rig.name, handed))
    all_reached(rig, root)
    features = rig.workers[0]
    until(lambda: "by_card@v2" in features.label(LAG, "view"), features.tail)
    swapped = msgspec.structs.replace(handed, number=handed.number + 1, in_force=handed.in_force | {"by_card": 2})
    asyncio.run(append_definitions(rig.settings, rig.name, swapped))
    rig.produce(100)
    all_reached(rig, root)
    rig.check()
    assert [worker.process.poll() for worker in rig.workers] == [None, None]
    until(lambda: "by_card@v1" in features.label(LAG, "view"), features.tail)
    assert features.label(LAG, "view") == {"by_card", "by_card@v1", "by_shop"}


def test_services_wait_for_the_first_versions(rig: Rig, tmp_path: Path) -> None:
    """While all versions are being filled there is no view: services are ready, and fold in the same processes what is handed over."""
    root = str(tmp_path / "offline")
    asyncio.run(ensure_topics(rig.settings, topic_specs(rig.project)))
    events = tuple(write_event(event) for event in rig.project.events.values())
    filling = Definitions(1, 5, events, tuple(ViewVersion(write_view(view), 1) for view in rig.project.views.values()))
    asyncio.run(append_definitions(rig.settings, rig.name, filling))
    rig.produce(100)
    for module in ("tidemill_features", "tidemill_offline", "tidemill_audit"):
        rig.worker(module, TIDEMILL_OFFLINE=root)
    for worker in rig.workers:
        worker.wait_ready()
    assert rig.stored() == []
    one = filling.handed_over("by_card", 1, {}, 6)
    for definitions in (one, one.handed_over("by_shop", 1, {}, 7)):
        asyncio.run(append_definitions(rig.settings, rig.name, definitions))
    all_reached(rig, root)
    rig.check()
    for worker in rig.workers:
        worker.wait_ready()
        assert worker.process.poll() is None


def test_changes_under_traffic_are_no_faults(rig: Rig, tmp_path: Path) -> None:
    """Four times the services begin anew, in the middle of commits: no check that held is missing, no line is a warning, and nothing is missing or
    twice."""
    root = str(tmp_path / "offline")
    asyncio.run(ensure_topics(rig.settings, topic_specs(rig.project)))
    workers = [
        rig.worker(module, TIDEMILL_OFFLINE=root, TIDEMILL_FLUSH_SECONDS="0.05")
        for module in ("tidemill_features", "tidemill_offline", "tidemill_audit", "tidemill_ingestion")
    ]
    rig.produce(100)
    for worker in workers:
        worker.wait_ready()
    begun, held = [len(worker.lines()) for worker in workers], [worker.checks() for worker in workers]
    now, missing = plan_of(NOTHING, rig.project, 5, Surroundings()).first, set[str]()

    def look() -> None:
        for worker, checks in zip(workers, held, strict=True):
            held_before = {name: check for name, check in worker.checks().items() if name in checks}
            missing.update(f"{name}: {check}" for name, check in held_before.items() if not check["ok"] and check.get("reason") != BUSY)

    with traffic(rig):
        for hours in (1, 2, 3, 4):
            views = tuple(msgspec.structs.replace(found, view=msgspec.structs.replace(found.view, ttl=f"{hours}h")) for found in now.views)
            now = msgspec.structs.replace(now, number=now.number + (hours > 1), views=views)
            asyncio.run(append_definitions(rig.settings, rig.name, now))
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not all(worker.works_by(now.number) for worker in workers):
                assert time.monotonic() < deadline, [worker.tail() for worker in workers]
                look()
            time.sleep(1)
            look()
    all_reached(rig, root)
    look()
    rig.check()
    assert [faults(worker.lines()[first:]) for worker, first in zip(workers, begun, strict=True)] == [[]] * len(workers)
    assert missing == set()


@contextmanager
def traffic(rig: Rig) -> Iterator[None]:
    """Records all the time."""
    over = threading.Event()

    def produce() -> None:
        while not over.is_set():
            rig.produce(1000)

    with ThreadPoolExecutor(1) as pool:
        producing = pool.submit(produce)
        try:
            yield
        finally:
            over.set()
    producing.result()
