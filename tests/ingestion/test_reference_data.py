"""Changes of a database's rows through real services: served values are the rows as they are now, and the stores agree on them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.ask import post
from tests.ingestion.log_tools import make_topics, read_log, wait_routed

from tidemill.declarations.project import Project, load_project
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.waves import Record, send_wave
from tidemill.local.stack import Stack
from tidemill.offline.store import OfflineStore
from tidemill.proof.partition_audit import AuditReport, PartitionAudit
from tidemill.redis.link import RedisLink
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import dead_letters_topic

pytestmark = pytest.mark.integration
EXAMPLE = Path(__file__).parents[2] / "examples/customers/project.py"
NOW_MS, SOON, PEOPLE, CHANGES = 1_790_000_000_000, 60, 40, 600
FEATURES = {"last_segment": "segment", "last_country": "country", "last_credit": "credit"}


@pytest.fixture
def project(topic_prefix: str, tmp_path: Path) -> Project:
    """The example, under names that nobody else uses."""
    text = EXAMPLE.read_text().replace('PROJECT = "returns"', f'PROJECT = "{topic_prefix}"').replace('"pg.', f'"{topic_prefix}.')
    for event, end in (("ordered", 'id="order")'), ("closed", '"returned": bool}, time="at")')):
        text = text.replace(end, f'{end[:-1]}, topic="{topic_prefix}.{event}")')
    (tmp_path / "project.py").write_text(text)
    return load_project(tmp_path)


class Database:
    """A table of customers, and the changes that Debezium would write. Some are delivered twice. `seen`: what is to be served of each row: a
    column that became null keeps the value that it had since the row was made."""

    def __init__(self, seed: int) -> None:
        self.rows, self.seen = dict[int, dict[str, Any]](), dict[int, dict[str, Any]]()
        self._draw, self._lsn = random.Random(seed), 0

    def change(self) -> list[bytes | None]:
        """One change, as records of the topic."""
        self._lsn += 1
        draw, customer = self._draw, self._draw.randrange(PEOPLE)
        before, at = self.rows.pop(customer, None), NOW_MS + self._lsn * 1_000
        after = None
        if before is None or draw.random() < 0.7:
            country, credit = draw.choice([None, "NZ", "é"]), draw.choice([None, draw.randrange(900) / 4])
            after = {"id": customer, "segment": draw.choice(["new", "gold", ""]), "country": country, "credit": credit}
            self.rows[customer] = after
            known = after if before is None else self.seen[customer]
            self.seen[customer] = {name: known[name] if value is None else value for name, value in after.items()}
        else:
            del self.seen[customer]
        operation = "d" if after is None else "c" if before is None else "u"
        told = json.dumps(
            {"op": operation, "before": before, "after": after, "source": {"ts_ms": at, "lsn": self._lsn}, "ts_ms": at}
        ).encode()
        return [told] * draw.choice([1, 1, 1, 2]) + [None] * (after is None)


def served(stack: Stack) -> dict[int, dict[str, Any]]:
    """The rows as feature serving gives them. Those that are not found are left out."""
    wanted = [f"customers:{name}" for name in FEATURES]
    body = {"features": wanted, "entities": {"customer": [*range(PEOPLE)]}, "as_of": NOW_MS + CHANGES * 1_000 + 5_000}
    answer = post(f"{stack.urls['serving']}/get-online-features", json=body)
    answer.raise_for_status()
    found = answer.json()
    names, results = found["metadata"]["feature_names"], found["results"]
    rows = dict[int, dict[str, Any]]()
    for name, result in zip(names, results, strict=True):
        for customer, (value, status) in enumerate(zip(result["values"], result["statuses"], strict=True)):
            if name != "customer" and status != "NOT_FOUND":
                rows.setdefault(customer, {"id": customer})[FEATURES[name.rpartition("__")[2].rpartition(":")[2]]] = value
    return rows


async def test_served_values_are_the_rows_of_the_table(stack: Stack, project: Project, kafka: str, redis_url: str, tmp_path: Path) -> None:
    """After hundreds of changes, a restart of feature computation among them: each row, none that was deleted, and both stores the same."""
    settings, database, topic = KafkaSettings(bootstrap_servers=kafka), Database(1), project.events["customer_changed"].topic
    await make_topics(settings, project)
    client = producer(settings)
    await client.start()
    for half in range(2):
        records: list[Record] = [(None, value, []) for _ in range(CHANGES // 2) for value in database.change()]
        await send_wave(client, {(topic, 0): records})
        if half == 0:
            await asyncio.to_thread(stack.restart, "features")
    await close_producer(client)
    await wait_routed(settings, project, SOON)
    deadline = time.monotonic() + SOON
    while (newest := await asyncio.to_thread(served, stack)) != database.seen and time.monotonic() < deadline:
        await asyncio.sleep(0.3)
    assert newest == database.seen
    assert 10 < len(newest) < PEOPLE
    assert sum(map(len, (await read_log(settings, dead_letters_topic(project.name))).values())) == 0
    view, store = project.views["customers"], OfflineStore(stack.offline)
    async with RedisLink(redis_url, timeout_seconds=10) as link:
        for partition in range(view.partitions):
            report = AuditReport()
            await PartitionAudit(project.name, view, partition, store, link, wait_seconds=30).whole(report)
            assert (report.examples, report.checked > 10) == ([], True)
