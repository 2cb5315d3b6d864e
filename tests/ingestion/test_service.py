"""The service as a process beside a real Kafka: killed, stopped, without Kafka, over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.ingestion.log_tools import expected, publish, read_log, told, wait_routed
from tests.ingestion.samples import AIRLINE, NOW_MS, airline, arrived, departed, scheduled
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations.project import Project
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import committed, ensure_topics
from tidemill.local.services import SERVICES
from tidemill.local.stack import External, Stack
from tidemill.names import log_name
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group, view_topic

pytestmark = pytest.mark.integration

INGESTION = next(service for service in SERVICES if service.name == "ingestion")
OLD = [("ce_recordedtime", b"1700000000000")]


@pytest.fixture
def settings(kafka: str) -> KafkaSettings:
    """The session's broker."""
    return KafkaSettings(bootstrap_servers=kafka)


@pytest.fixture
def project(topic_prefix: str) -> Project:
    """The tests' project under a name nobody else uses."""
    return airline(topic_prefix)


@pytest.fixture
def stack(kafka: str, project: Project, tmp_path: Path) -> Iterator[Stack]:
    """The service, supervised."""
    with Stack(
        tmp_path, project=str(AIRLINE), services=(INGESTION,), external=External(kafka=kafka), environment={"AIRLINE": project.name}
    ) as made:
        yield made


@asynccontextmanager
async def client_of(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service."""
    async with httpx.AsyncClient(base_url=stack.urls["ingestion"], timeout=180, trust_env=False) as client:
        yield client


@pytest.mark.soak
async def test_killed_in_mid_stream(stack: Stack, settings: KafkaSettings, project: Project) -> None:
    """Killed again and again in the middle of a stream, it repeats some records but loses none, in order: the fold sees each once."""
    events = [departed(flight=f"F{n}", origin=f"O{n % 11}", carrier=f"C{n % 3}", seats=n) for n in range(60_000)]

    async def publish_all() -> None:
        for start in range(0, len(events), 3_000):
            await publish(settings, project, "departed", events[start : start + 3_000], OLD)
        await publish(settings, project, "scheduled", [scheduled(flight=f"F{n}") for n in range(2_000)], OLD)
        await publish(settings, project, "arrived", [arrived(number=n) for n in range(2_000)], OLD)

    publishing = asyncio.create_task(publish_all())
    for _ in range(3):
        await asyncio.sleep(0.4)
        await asyncio.to_thread(stack.kill, "ingestion")
        await asyncio.to_thread(stack.wait_ready, "ingestion")
    await publishing
    await wait_routed(settings, project)
    assert await told(settings, project) == await expected(settings, project)


async def test_stopped_in_good_order(stack: Stack, settings: KafkaSettings, project: Project) -> None:
    """Told to stop, it finishes its wave and commits: nothing is sent twice afterwards."""
    for start in range(0, 9_000, 3_000):
        await publish(settings, project, "departed", [departed(flight=f"F{n}") for n in range(start, start + 3_000)], OLD)
        await asyncio.to_thread(stack.restart, "ingestion")
    await wait_routed(settings, project)
    log = await read_log(settings, f"{project.name}.view.origins.p4")
    assert sum(len(records) for records in log.values()) == 9_000


async def test_events_over_http(stack: Stack, settings: KafkaSettings, project: Project) -> None:
    """Good events are answered with their positions, lie there with CloudEvents headers, and are routed; bad ones are named."""
    batch: list[dict[str, Any]] = [
        {"type": "departed", "data": departed(), "recordedtime": NOW_MS},
        {"type": "departed", "data": departed(seats="x")},
        {
            "specversion": "1.0", "type": "scheduled", "source": "/timetable", "id": "e-1", "data": scheduled(flight="ÜA 1"),
            "time": "2023-11-14T22:13:20Z", "partitionkey": "ÜA 1", "datacontenttype": "application/json",
        },
        {"type": "arrived", "data": arrived(number=...), "id": "12"},
    ]  # fmt: skip
    async with client_of(stack) as client:
        answer = await client.post("/events", json=batch)
        assert answer.status_code == 207
        results = answer.json()["results"]
        assert [result.get("id") for result in results] == ["UA1", None, "e-1", "12"]
        assert (results[1]["reason"], results[1]["field"]) == ("wrong_type", "seats")
        await wait_routed(settings, project)
        log = await read_log(settings, *(event.topic for event in project.events.values()))
        for sent, result in zip(batch, results, strict=True):
            if "position" in result:
                topic, partition, offset = result["position"]
                (record,) = [
                    r for records in log.values() for r in records if (r.topic, r.partition, r.offset) == (topic, partition, offset)
                ]
                assert json.loads(record.value) == sent["data"]
                assert dict(record.headers)["ce_id"] == result["id"].encode()
                assert dict(record.headers)["ce_source"] == sent.get("source", "tidemill.ingestion").encode()
        assert await told(settings, project) == await expected(settings, project)
        metrics = (await client.get("/metrics")).text
        assert f'tidemill_ingestion_events_in_total{{topic="{project.name}.in.departed"}} 1.0' in metrics
        assert 'tidemill_ingestion_responses_total{status="207"} 1.0' in metrics


async def test_many_requests_at_once(stack: Stack, settings: KafkaSettings, project: Project) -> None:
    """Requests side by side are all answered with positions of their own, and those of one key keep their order."""
    async with client_of(stack) as client:

        async def sender(name: int) -> list[list[Any]]:
            positions = []
            for n in range(20):
                event = {"type": "departed", "data": departed(flight=f"F{name}-{n}"), "partitionkey": str(name)}
                answer = await client.post("/events", json=event)
                assert answer.status_code == 200
                positions.append(answer.json()["results"][0]["position"])
            return positions

        answers = await asyncio.gather(*[sender(name) for name in range(16)])
    await wait_routed(settings, project)
    assert len({tuple(position) for positions in answers for position in positions}) == 320
    for positions in answers:
        assert len({partition for _, partition, _ in positions}) == 1
        assert positions == sorted(positions)
    assert await told(settings, project) == await expected(settings, project)


async def test_large_bodies(stack: Stack, settings: KafkaSettings, project: Project) -> None:
    """A batch of several megabytes of large and small events is taken, an event of 2 MB is not."""
    events = [{"type": "scheduled", "data": scheduled(flight=f"F{n}", cabin="x" * 990_000 * (n % 2))} for n in range(12)]
    async with client_of(stack) as client:
        answer = await client.post("/events", json=events)
        assert (answer.status_code, answer.json()["accepted"]) == (200, 12)
        answer = await client.post("/events", json={"type": "scheduled", "data": scheduled(cabin="x" * 2_000_000)})
        assert (answer.status_code, answer.json()["results"][0]["reason"]) == (422, "oversized")
        assert (await client.post("/events", content=b"x" * 9_000_000)).status_code == 413
    await wait_routed(settings, project)
    assert await told(settings, project) == await expected(settings, project)


async def test_kafka_comes_late_dies_and_returns(tmp_path: Path, topic_prefix: str) -> None:
    """Without Kafka, at start or later, the service says so and answers 503; when Kafka comes it goes on by itself, and the whole is exact."""
    project, event = airline(topic_prefix), {"type": "departed", "data": departed()}
    with Stack(tmp_path, project=str(AIRLINE), services=(INGESTION,), environment={"AIRLINE": topic_prefix}) as stack:
        for name in ("ingestion", "kafka"):
            await asyncio.to_thread(stack.halt, name)
        stack.supervisor.start("ingestion")
        pid = stack.pid("ingestion")
        settings = KafkaSettings(bootstrap_servers=stack.kafka)
        async with client_of(stack) as client:
            for _ in range(2):
                await _until(client, "/health/ready", 503)
                assert "Kafka" in (await client.get("/health/ready")).text
                assert (await client.get("/health/live")).status_code == 200
                answer = await client.post("/events", json=event)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                await asyncio.to_thread(stack.resume, "kafka")
                await _until(client, "/health/ready", 200)
                assert (await client.post("/events", json=event)).status_code == 200
                await publish(settings, project, "departed", [departed(flight=f"F{n}") for n in range(3_000)], OLD)
                await asyncio.to_thread(stack.halt, "kafka")
        await asyncio.to_thread(stack.resume, "kafka")
        await wait_routed(settings, project)
        assert await told(settings, project) == await expected(settings, project)
        assert stack.pid("ingestion") == pid


async def _until(client: httpx.AsyncClient, path: str, status: int) -> None:
    """Ask until the status is that one, and a reason is given with it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                answer = await client.get(path)
                if answer.status_code == status and "not checked yet" not in answer.text:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


def started(**environment: str) -> subprocess.Popen[bytes]:
    """The service as a process of our own, with nothing in its environment but this."""
    path = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", "tidemill_ingestion"],
        env={"PYTHONPATH": path, "TIDEMILL_PORT": "0", **environment}, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit code and log of a process that ends by itself."""
    try:
        _, log = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, log.decode()


def test_settings_that_are_missing() -> None:
    """Without its settings the process ends with their names."""
    code, log = ended(started())
    assert code == 1
    assert "TIDEMILL_PROJECT is not set" in log


def test_project_that_is_missing() -> None:
    """Without its project the process ends and says what to do."""
    code, log = ended(started(TIDEMILL_PROJECT="/nowhere/project.py", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"))
    assert code == 1
    assert "there is no file /nowhere/project.py" in log


def test_stopped_while_waiting_for_kafka() -> None:
    """A process that waits for Kafka stops soon when told to, in good order."""
    process = started(TIDEMILL_PROJECT=str(AIRLINE), KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert process.stderr is not None
    assert any(b"waiting for Kafka" in line for line in process.stderr), "it ended without saying that it waits"
    process.terminate()
    assert ended(process)[0] == 0


def test_topic_of_another_shape(settings: KafkaSettings, project: Project, kafka: str, tmp_path: Path) -> None:
    """A topic with another partition count than its name says ends the process: where an entity lives depends on it."""
    made_by_hand = {view_topic(project.name, log_name("carriers", 5)): TopicSpec(3, {})}
    asyncio.run(ensure_topics(settings, made_by_hand))
    declared = (AIRLINE / "project.py").read_text().replace("partitions=3", "partitions=5")
    (tmp_path / "project.py").write_text(declared)
    process = started(TIDEMILL_PROJECT=str(tmp_path), KAFKA_BOOTSTRAP_SERVERS=kafka, AIRLINE=project.name)
    code, log = ended(process)
    assert code == 1
    assert "carriers.p5 has 3 partitions, 5 are declared" in log
    assert not asyncio.run(committed(settings, ingestion_group(project.name)))
