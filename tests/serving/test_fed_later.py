"""A view is added to a project in use: what is served, trained on, audited and rebuilt says that it cannot know yet, and then is right."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.ask import post
from tests.features.rig import until

from tidemill.declarations.project import load_project
from tidemill.kernel.keys import partition_of
from tidemill.kernel.view import ViewKernel
from tidemill.local.services import SERVICES
from tidemill.local.stack import Stack
from tidemill.offline.history import PartitionLog, Question, answer
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.operations.rebuild import Rebuild
from tidemill.proof.audit import audit
from tidemill.redis.link import RedisLink
from tidemill.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration

NAMES = ("ingestion", "features", "offline", "serving")
DECLARED = """
from tidemill import Event, FeatureView, count, sum

PROJECT = {name!r}
sold = Event("sold", {{"shop": str, "at": int, "price": float}}, time="at", topic="{name}.in.sold", partitions=2)
old = FeatureView("old", sold, "shop", [count(), sum("price")], windows=["10s", "1h"], tile="1s", partitions=2)
"""
ADDED = 'new = FeatureView("new", sold, "shop", [count(), sum("price")], windows=["10s", "1h"], tile="1s", partitions=2)\n'
FEATURES = ["count_10s", "sum_price_10s", "count_1h", "sum_price_1h"]


class Town:
    """A stack, and what was published to it."""

    def __init__(self, stack: Stack, folder: Path, name: str) -> None:
        self.stack, self.folder, self.name = stack, folder, name
        self.events: list[tuple[str, int]] = []

    def publish(self, *shops: str) -> None:
        """One event of each, now."""
        now = time.time_ns() // 1_000_000
        batch = [{"type": "sold", "data": {"shop": shop, "at": now, "price": 2.0}} for shop in shops]
        post(self.stack.urls["ingestion"] + "/events", json=batch, timeout=180).raise_for_status()
        self.events += [(shop, now) for shop in shops]

    def served(self, view: str, at_ms: int) -> dict[str, tuple[Any, str]]:
        """Value and status of each feature of shop "a"."""
        body = {"features": [f"{view}:{name}" for name in FEATURES], "entities": {"shop": ["a"]}, "as_of": at_ms}
        answer = post(self.stack.urls["serving"] + "/get-online-features", json=body, timeout=180).raise_for_status().json()
        names = answer["metadata"]["feature_names"]
        found = {name: (column["values"][0], column["statuses"][0]) for name, column in zip(names, answer["results"], strict=True)}
        return {name: found[name] for name in FEATURES}

    def wait_counted(self, view: str) -> None:
        """Return once the shop's last event is in the view."""
        last = max(at for shop, at in self.events if shop == "a")
        until(lambda: self.served(view, last)["count_10s"][1] in ("PRESENT", "INVALID"), lambda: f"{self.served(view, last)}")


@pytest.fixture
def town(tmp_path: Path, topic_prefix: str) -> Iterator[Town]:
    """A project with one view, in use."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "project.py").write_text(DECLARED.format(name=topic_prefix))
    services = tuple(service for service in SERVICES if service.name in NAMES)
    with Stack(tmp_path / "stack", project=str(folder), services=services, servers=("kafka", "valkey")) as stack:
        yield Town(stack, folder, topic_prefix)


def test_a_view_is_added(town: Town) -> None:
    """INVALID after its first event where the old view has all, in answers and in rows; what its windows cover is the plain count."""
    town.publish(*["a"] * 5, *"bcdefgh")
    town.wait_counted("old")
    (town.folder / "project.py").write_text(DECLARED.format(name=town.name) + ADDED)
    for name in NAMES:
        town.stack.restart(name)
    declared_ms = time.time_ns() // 1_000_000
    town.publish("a", "b")
    town.wait_counted("new")
    at = town.events[-1][1]
    until(lambda: town.served("old", at)["count_1h"] == (6, "PRESENT"), lambda: f"{town.served('old', at)}")
    new, old = town.served("new", at), town.served("old", at)
    assert [new[name][1] for name in FEATURES[2:]] == ["INVALID"] * 2
    assert all(new[name] == old[name] for name in FEATURES[:2] if new[name][1] != "INVALID")  # the restarts may have taken ten seconds
    time.sleep(max(0.0, (declared_ms + 12_000) / 1000 - time.time()))
    town.publish("a")
    at = town.events[-1][1]
    until(
        lambda: town.served("new", at) == {**town.served("new", at), "count_10s": (_count(town, at), "PRESENT")},
        lambda: f"{town.served('new', at)}",
    )
    new = town.served("new", at)
    until(lambda: [town.served("old", at)[name] for name in FEATURES[:2]] == [new[name] for name in FEATURES[:2]], lambda: f"{new}")
    assert [new[name][1] for name in FEATURES[2:]] == ["INVALID"] * 2
    _rows_say_the_same(town, new, at)
    assert asyncio.run(_rebuilt_and_audited(town)) == 0
    until(lambda: town.served("new", at) == new, lambda: f"{town.served('new', at)}, not {new}")


def _count(town: Town, at_ms: int) -> int:
    """Events of shop "a" in the tiles of the last ten seconds, counted plainly."""
    first = (at_ms - 10_000) // 1000 * 1000
    return Counter(shop for shop, at in town.events if first <= at)["a"]


def _rows_say_the_same(town: Town, served: dict[str, tuple[Any, str]], at_ms: int) -> None:
    view = load_project(town.folder).views["new"]
    partition, store = partition_of(b"a", view.partitions), OfflineStore(town.stack.offline)

    def rows() -> pa.Table:
        return store.scan(view_folder(view.log), filters=pc.field("partition") == partition)

    until(lambda: rows()["time"].to_pylist()[-1:] == [at_ms], lambda: f"{rows().to_pylist()}")
    log = PartitionLog(view, rows())
    (reading,) = answer(ViewKernel(view), log, [Question(len(log), b"a", at_ms)])
    assert reading is not None
    assert reading.complete == [served[feature.name][1] == "PRESENT" for feature in view.served]
    assert [value for value, whole in zip(reading.values, reading.complete, strict=True) if whole] == [
        served[feature.name][0] for feature in view.served if served[feature.name][1] == "PRESENT"
    ]


async def _rebuilt_and_audited(town: Town) -> int:
    """The new view made anew from its rows; how many values then differ from the rows."""
    project, store = load_project(town.folder), OfflineStore(town.stack.offline)
    async with RedisLink(town.stack.redis_url, timeout_seconds=10) as link:
        await Rebuild(project, project.views["new"], store, link, KafkaSettings(bootstrap_servers=town.stack.kafka)).run(range(2))
        report = await audit(project, store, link)
    assert report.checked > 10
    return report.mismatched
