"""A whole inference service in the test's own process, on real Kafka and Valkey."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import TopicPartition
from tests.beside import beside
from tests.demo_state import NOW_MS, Store, demo, saved, trained, trip

from tidemill.declarations.project import Project
from tidemill.kafka.client import consumer, producer
from tidemill.models.artifact import Artifact
from tidemill.records import DeploymentRecord, PredictionRecord, decoder, encode
from tidemill.runtime.encodings import unpacked
from tidemill.runtime.http import HttpServer
from tidemill.runtime.settings import HttpSettings, KafkaSettings, OfflineSettings, ProjectSettings, RedisSettings
from tidemill.streams.topics import deployments_topic, predictions_topic
from tidemill_inference.app import Inference
from tidemill_inference.settings import InferenceSettings

ENTITIES = {"zone": "north", "driver_id": 7, "distance": 2.5, "payment": "cash", "member": True}


class Service:
    """A running service and what a test does around it."""

    def __init__(self, project: Project, settings: InferenceSettings) -> None:
        self.project = project
        self.settings = settings
        self.store = Store(settings.redis.url, project)
        self.http: httpx.AsyncClient

    async def deploy(self, artifact: Artifact) -> DeploymentRecord:
        """Save a version, announce it and wait until it serves."""
        record = saved(self.settings.offline.root, artifact)
        await self.announce(encode(record))
        await self.serving(record.model, record.version)
        return record

    async def announce(self, value: bytes) -> None:
        """Write to the deployments topic."""
        async with producer(self.settings.kafka) as made:
            await made.send_and_wait(deployments_topic(self.project.name), value, b"key")

    async def serving(self, model: str, version: str) -> None:
        """Wait until a version serves."""
        await self.until(f"/v2/models/{model}/versions/{version}/ready")

    async def until(self, path: str, status: int = 200) -> httpx.Response:
        """Wait until a path answers so."""
        async with asyncio.timeout(180):
            while (answer := await self.http.get(path)).status_code != status:
                await asyncio.sleep(0.02)
        return answer

    async def predict(self, body: Any, model: str = "big_tip") -> httpx.Response:
        """POST /predict."""
        return await self.http.post(f"/predict/{model}", json=body)

    async def logged(self, topic_of: Callable[[str], str] = predictions_topic) -> dict[str, list[PredictionRecord]]:
        """Every prediction in the log, by id; or in that of the shadows."""
        found: dict[str, list[PredictionRecord]] = {}
        topic = topic_of(self.project.name)
        reader = consumer(self.settings.kafka)
        await reader.start()
        try:
            partitions = [TopicPartition(topic, number) for number in range(4)]
            reader.assign(partitions)
            await reader.seek_to_beginning(*partitions)
            for partition, end in (await reader.end_offsets(partitions)).items():
                while await reader.position(partition) < end:
                    for messages in (await reader.getmany(timeout_ms=1000)).values():
                        for message in messages:
                            record = decoder(PredictionRecord).decode(message.value)
                            assert message.key == record.id.encode()
                            found.setdefault(record.id, []).append(record)
        finally:
            await reader.stop()
        return found


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """Start a service, point its client there, and wait until it is ready."""
    inference = Inference(service.project, service.settings)
    server = HttpServer(unpacked(inference.app), service.settings.http)
    async with beside(inference.run()), server, httpx.AsyncClient(base_url=server.url, timeout=180, trust_env=False) as client:
        service.http = client
        await service.until("/health/ready")
        yield


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a service wait longer for servers: a busy machine, on which they are slow to answer, is no server that is away."""
    monkeypatch.setattr("tidemill_inference.app.REDIS_TIMEOUT_SECONDS", 20.0)
    monkeypatch.setattr("tidemill_inference.prediction_log.TIMEOUT_SECONDS", 20.0)


@pytest.fixture
async def bare(kafka: str, redis_url: str, tmp_path: Path, topic_prefix: str, patient: None) -> AsyncIterator[Service]:
    """Run a service that is ready, without a model and with an empty store."""
    settings = InferenceSettings(
        project=ProjectSettings(project="unused"),
        kafka=KafkaSettings(bootstrap_servers=kafka),
        redis=RedisSettings(url=redis_url),
        offline=OfflineSettings(root=str(tmp_path / "offline")),
        http=HttpSettings(port=0),
    )
    service = Service(dataclasses.replace(demo(), name=topic_prefix), settings)
    async with running(service):
        yield service


@pytest.fixture
async def service(bare: Service) -> Service:
    """Run a service with a deployed model and some state."""
    bare.store.apply([trip(NOW_MS - 60_000 * i, "north", fare=10.0 + i, tip=float(i), driver=7) for i in range(20)])
    await bare.deploy(trained(bare.project.models["big_tip"]))
    return bare
