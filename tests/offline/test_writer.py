"""The offline writer against a real broker: killed, doubled, damaged, cut off, its tables equal the topics, record by record."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from tests.offline.lake import NOW_MS, Pair, Service, lake, make_topics, read_topic, running, send, shop_value, until
from tests.patience import PATIENCE_SECONDS

from tidemill.checksums import proof_of
from tidemill.declarations.project import Project
from tidemill.kafka.admin import admin
from tidemill.kernel.keys import partition_of
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import MirrorTable
from tidemill.runtime.settings import KafkaSettings
from tidemill_offline.app import tables_of

pytestmark = pytest.mark.integration


@pytest.fixture
def project(topic_prefix: str) -> Project:
    """The project under a name of this test's own."""
    return lake(topic_prefix)


@pytest.fixture
def writer(kafka: str, project: Project, tmp_path: Path) -> Iterator[Service]:
    """The writer's process, not yet started."""
    service = Service("tidemill_offline", project.name, kafka, tmp_path / "offline", tmp_path / "writer.log")
    yield service
    service.kill()


def wave(project: Project, first: int, end: int) -> dict[tuple[str, int], list[Pair]]:
    """Records for all topics of the writer; one in fifty cannot be decoded."""
    found: dict[tuple[str, int], list[Pair]] = {}
    for i in range(first, end):
        key = b"k%d" % (i % 37)
        values = {
            "views/shops.p3": shop_value(i),
            "views/items.p2": b'{"time":%d,"known":%d,"source":[0,%d],"values":{}}' % (NOW_MS + i, NOW_MS + i, i),
        }
        for table in tables_of(project):
            value = b"\x00junk" if i % 50 == 7 else values[table.name]
            found.setdefault((table.topic, partition_of(key, table.partitions)), []).append((key, value))
    return found


def written(service: Service, project: Project, each: int) -> bool:
    """Whether every table has this many rows, by the positions the service tells."""
    positions = service.get("/positions").json()
    return all(sum(positions[table.topic].values()) == each for table in tables_of(project))


async def assert_mirrored(kafka: str, project: Project, offline: Path, each: int) -> None:
    """Every table holds exactly the records of its topic, with dense offsets and the positions of its end."""
    store = OfflineStore(offline)
    for table in tables_of(project):
        topic = await read_topic(kafka, table.topic)
        snapshot = store.snapshot(table.name)
        rows = snapshot.scan(["partition", "offset", "key", "proof", "time"]).to_pylist()
        assert [(row["partition"], row["offset"], row["key"].encode(), row["proof"]) for row in rows] == [
            (p, offset, key, proof_of(key, value)) for p in sorted(topic) for offset, (key, value) in enumerate(topic[p])
        ]
        assert snapshot.positions == {p: len(records) for p, records in topic.items()}
        assert len(rows) == each
        assert sum(row["time"] is None for row in rows) == sum(i % 50 == 7 for i in range(each))


async def test_mirrors_every_topic_and_stops_in_order(kafka: str, project: Project, writer: Service, tmp_path: Path) -> None:
    """All tables are written, the service is ready and counts, and ends with 0 on SIGTERM; the topics it needs it makes itself."""
    with running(writer):
        await until(lambda: writer.get("/health/ready").status_code == 200)
        await send(kafka, wave(project, 0, 1000))
        await until(lambda: written(writer, project, 1000))
        text = writer.get("/metrics").text
        assert 'tidemill_offline_rows_total{table="views/shops.p3"} 1000.0' in text
        assert writer.get("/nowhere").status_code == 404
        assert writer.stop() == 0
    await assert_mirrored(kafka, project, tmp_path / "offline", 1000)


async def test_empty_topics_are_no_wait(kafka: str, project: Project, writer: Service) -> None:
    """Where nothing is to be written the service is ready at once, and not when the first commit would be due."""
    await make_topics(kafka, project)
    with running(writer, TIDEMILL_FLUSH_SECONDS="60"):
        await until(lambda: writer.get("/health/ready").is_success)


@pytest.mark.soak
async def test_killed_again_and_again(kafka: str, project: Project, writer: Service, tmp_path: Path) -> None:
    """Seven kill -9 while records flow: nothing is missing, nothing twice."""
    await make_topics(kafka, project)
    chance, count = random.Random(7), 12_000
    sending = asyncio.create_task(_trickle(kafka, project, count))
    for _ in range(7):
        writer.start()
        await until(lambda: any(sum(p.values()) for p in writer.get("/positions").json().values()))
        await asyncio.sleep(chance.random() * 0.5)
        writer.kill()
    await sending
    with running(writer):
        await until(lambda: written(writer, project, count))
    await assert_mirrored(kafka, project, tmp_path / "offline", count)


async def _trickle(kafka: str, project: Project, count: int) -> None:
    for first in range(0, count, 500):
        await send(kafka, wave(project, first, first + 500))
        await asyncio.sleep(0.1)


@pytest.mark.soak
async def test_two_writers_at_once(kafka: str, project: Project, writer: Service, tmp_path: Path) -> None:
    """Two processes that should not run together still write each record once."""
    await make_topics(kafka, project)
    other = Service("tidemill_offline", project.name, kafka, tmp_path / "offline", tmp_path / "other.log")
    with running(writer), running(other):
        await until(lambda: writer.get("/positions").json() and other.get("/positions").json())
        await _trickle(kafka, project, 3000)
        await until(lambda: max(_total(writer), _total(other)) == 3000 * len(tables_of(project)))
    await assert_mirrored(kafka, project, tmp_path / "offline", 3000)


def _total(service: Service) -> int:
    return sum(sum(positions.values()) for positions in service.get("/positions").json().values())


async def test_torn_newest_commits_are_written_again(kafka: str, project: Project, writer: Service, tmp_path: Path) -> None:
    """After a power cut that tore the newest commit of each table, the writer takes them out, says so, and writes the records again."""
    with running(writer):
        await until(lambda: writer.get("/health/ready").status_code == 200)
        for first in (0, 500):
            await send(kafka, wave(project, first, first + 500))
            await until(lambda end=first + 500: written(writer, project, end))
    for table in tables_of(project):
        commit = max((tmp_path / "offline" / table.name / "_delta_log").glob("*.json"))
        commit.write_bytes(commit.read_bytes()[:-30])
    with running(writer):
        await until(lambda: written(writer, project, 1000))
        assert sum("half written" in line["message"] for line in writer.lines()) == len(tables_of(project))
    await assert_mirrored(kafka, project, tmp_path / "offline", 1000)


async def test_store_away_and_back(kafka: str, project: Project, writer: Service, tmp_path: Path) -> None:
    """While the store cannot be written the service is unready and says why; afterwards it goes on without a restart."""
    (tmp_path / "offline").write_text("in the way")
    await make_topics(kafka, project)
    await send(kafka, wave(project, 0, 500))
    with running(writer):
        await until(lambda: "cannot open" in _reason(writer, "views/items.p2"))
        (tmp_path / "offline").unlink()
        await until(lambda: written(writer, project, 500))
        await until(lambda: writer.get("/health/ready").status_code == 200)
    await assert_mirrored(kafka, project, tmp_path / "offline", 500)


def _reason(service: Service, check: str) -> str:
    checks: dict[str, Any] = service.get("/health/ready").json()["checks"]
    return str(checks[check].get("reason", ""))


async def test_recreated_topic_is_refused(kafka: str, project: Project, writer: Service, tmp_path: Path) -> None:
    """A topic that was made anew, and filled beyond the old position, is refused; the other tables go on."""
    items = next(table for table in tables_of(project) if table.name == "views/items.p2")
    with running(writer):
        await until(lambda: writer.get("/health/ready").status_code == 200)
        await send(kafka, wave(project, 0, 400))
        await until(lambda: written(writer, project, 400))
    await _make_anew(kafka, items)
    others = {target: pairs for target, pairs in wave(project, 400, 500).items() if target[0] != items.topic}
    new: Pair = (b"new", b"new")
    await send(kafka, {(items.topic, p): [new] * 400 for p in range(items.partitions)} | others)
    with running(writer):
        await until(lambda: "made anew" in _reason(writer, "views/items.p2"))
        await until(lambda: sum(writer.get("/positions").json()[f"{project.name}.view.shops.p3"].values()) == 500)
        assert writer.get("/health/ready").status_code == 503
    assert len(OfflineStore(tmp_path / "offline").scan("views/items.p2")) == 400


async def _make_anew(kafka: str, table: MirrorTable) -> None:
    async with admin(KafkaSettings(bootstrap_servers=kafka)) as client:
        await client.delete_topics([table.topic])
        while table.topic in await client.list_topics():
            await asyncio.sleep(0.1)
        await client.create_topics([NewTopic(table.topic, table.partitions, 1)])


async def test_unusable_settings_are_named(kafka: str, project: Project, writer: Service) -> None:
    """A project that does not exist ends the process at once with the variable to correct."""
    writer.start(TIDEMILL_PROJECT="/nowhere/project.py")
    assert writer.process is not None
    assert writer.process.wait(PATIENCE_SECONDS) == 1
    (line,) = [line for line in writer.lines() if line["level"] == "error"]
    assert "TIDEMILL_PROJECT" in line["mend"]
