"""A large batch of one shop that its publisher sends again and again, over HTTP and into other partitions, while services are killed: once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.ask import post
from tests.ingestion.log_tools import make_topics, publish, wait_routed

from tidemill.clock import now_ms
from tidemill.declarations.project import Project, load_project
from tidemill.kafka.topics import offset_ranges
from tidemill.local.stack import Stack
from tidemill.offline.store import OfflineStore
from tidemill.operations.fill.folded import wait_folded
from tidemill.proof.partition_audit import AuditReport, PartitionAudit
from tidemill.redis.link import RedisLink
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import view_topic

pytestmark = pytest.mark.integration
EVENTS, SOON = 2_000, 60
PROJECT = """
import tidemill as tm
PROJECT = "{name}"
bought = tm.Event(
    "bought", {{"id": str, "shop": str, "at": int, "amount": float}}, time="at", id="id", topic="{name}.bought", partitions=3
)
shops = tm.FeatureView("shops", bought, "shop", [tm.count(), tm.sum("amount")], windows=["1h", "lifetime"], partitions=2)
"""


@pytest.fixture
def project(topic_prefix: str, tmp_path: Path) -> Project:
    """A view of shops."""
    (tmp_path / "project.py").write_text(PROJECT.format(name=topic_prefix))
    return load_project(tmp_path)


def send(stack: Stack, batch: Sequence[dict[str, Any]]) -> None:
    """Publishes over HTTP, in requests of 500 events, each until it is accepted."""
    for i in range(0, len(batch), 500):
        body = {"events": [{"type": "bought", "data": data} for data in batch[i : i + 500]]}
        post(f"{stack.urls['ingestion']}/events", json=body).raise_for_status()


def served(stack: Stack) -> list[Any]:
    """Count and sum of the shop, of the last hour and of its whole life."""
    names = ["shops:count_1h", "shops:sum_amount_1h", "shops:count", "shops:sum_amount"]
    answer = post(f"{stack.urls['serving']}/get-online-features", json={"features": names, "entities": {"shop": ["north"]}})
    answer.raise_for_status()
    return [result["values"][0] for result in answer.json()["results"][1:]]


async def test_each_event_counts_once(stack: Stack, project: Project, kafka: str, redis_url: str) -> None:
    """2,000 events of one shop, four times: by HTTP, after each process was killed, and without a key into other partitions."""
    settings, at = KafkaSettings(bootstrap_servers=kafka), now_ms()
    batch: list[dict[str, Any]] = [{"id": f"e{i}", "shop": "north", "at": at - i, "amount": i % 40 / 4} for i in range(EVENTS)]
    await make_topics(settings, project)
    await asyncio.to_thread(send, stack, batch)
    for killed in ("features", "ingestion"):
        stack.kill(killed)
        await asyncio.to_thread(stack.wait_ready, killed)
        await asyncio.to_thread(send, stack, batch)
    await publish(settings, project, "bought", [*batch[7:], *batch[:7]])
    await wait_routed(settings, project, SOON)
    await check_stores(project, stack, settings, redis_url)
    total = sum(data["amount"] for data in batch)
    assert await asyncio.to_thread(served, stack) == [EVENTS, total, EVENTS, total]


async def check_stores(project: Project, stack: Stack, settings: KafkaSettings, redis_url: str) -> None:
    """Once both stores have the whole log, in which each event lies at least four times, they say the same. It lies there once more when ingestion
    was killed between a wave and its commit."""
    view, store, ends = project.views["shops"], OfflineStore(stack.offline), dict[int, int]()
    for (_, partition), held in (await offset_ranges(settings, view_topic(project.name, view.log))).items():
        ends[partition] = held.end
    assert sum(ends.values()) >= 4 * EVENTS
    async with RedisLink(redis_url, timeout_seconds=10) as link, asyncio.timeout(SOON):
        await wait_folded(project.name, view, ends, store, link, lambda *_: None)
        for partition in range(view.partitions):
            report = AuditReport()
            await PartitionAudit(project.name, view, partition, store, link, wait_seconds=30).whole(report)
            assert report.examples == []
