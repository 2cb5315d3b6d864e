"""Kafka and Redis away, hostile requests, and the service as a process."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.demo_state import NOW_MS, demo, trained
from tests.frozen import freeze
from tests.inference.conftest import ENTITIES, Service, running
from tests.inference.test_messages import JSON, NEARLY
from tests.inference.test_oip import BODIES
from tests.patience import PATIENCE_SECONDS

from tidemill.local.stack import Stack
from tidemill.runtime.settings import HttpSettings, KafkaSettings, OfflineSettings, ProjectSettings, RedisSettings
from tidemill_inference.settings import InferenceSettings

pytestmark = pytest.mark.integration


@pytest.fixture
async def own(servers: Stack, topic_prefix: str, tmp_path: Path) -> AsyncIterator[tuple[Service, Stack]]:
    """Run a service on servers that a test may stop."""
    parts = InferenceSettings(
        project=ProjectSettings(project="unused"),
        kafka=KafkaSettings(bootstrap_servers=servers.kafka),
        redis=RedisSettings(url=servers.redis_url),
        offline=OfflineSettings(root=str(tmp_path / "offline")),
        http=HttpSettings(port=0),
    )
    service = Service(dataclasses.replace(demo(), name=topic_prefix), parts)
    async with running(service):
        await service.deploy(trained(service.project.models["big_tip"]))
        yield service, servers


async def test_no_answer_without_the_log(own: tuple[Service, Stack]) -> None:
    """While Kafka is away every request gets 503 with Retry-After in bounded time; afterwards all that was answered is in the log, once."""
    service, stack = own
    ask = {"entities": ENTITIES, "time": NOW_MS}
    answered = []
    for _ in range(5):
        answered.append(await _answered(service, ask))
    freeze(stack.pid("kafka"))  # a broker that takes everything and says nothing
    try:
        async with asyncio.timeout(180):
            held = await asyncio.gather(*(service.predict(ask | {"id": f"held{i}"}) for i in range(20)))
        assert {answer.status_code for answer in held} == {503}
        assert held[0].headers["retry-after"] == "1"
        assert "cannot be logged" in held[0].json()["error"]
        assert (await service.predict(ask)).status_code == 503
        assert "kafka" in (await service.http.get("/v2/health/ready")).json()["error"]
    finally:
        os.kill(stack.pid("kafka"), signal.SIGCONT)
    await service.until("/health/ready")
    await asyncio.to_thread(stack.halt, "kafka")
    assert (await service.until("/health/ready", 503)).status_code == 503
    assert (await service.predict(ask)).status_code == 503
    assert (await service.http.post("/v2/models/big_tip/infer", content=b"{}")).status_code == 400
    await asyncio.to_thread(stack.resume, "kafka")
    await service.until("/health/ready")
    for _ in range(5):
        answered.append(await _answered(service, ask))
    await service.deploy(trained(service.project.models["big_tip"], "v2", seed=1))
    logged = await service.logged()
    assert all(len(logged[name]) == 1 for name in answered)
    assert all(len(records) == 1 for records in logged.values())


async def _answered(service: Service, ask: dict[str, Any]) -> str:
    """The id of an answer. On a busy machine a server that is there may be late, and the request is refused: then another one is sent."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await service.predict(ask)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
            await asyncio.sleep(0.1)
    found: str = answer.json()["prediction_id"]
    return found


async def test_redis_away_is_503_until_it_is_back(own: tuple[Service, Stack]) -> None:
    """Without Redis predictions by entity get 503, those by tensor go on, and nothing is logged for the former."""
    service, stack = own
    await asyncio.to_thread(stack.halt, "valkey")
    answer = await service.predict({"entities": ENTITIES})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "Redis" in answer.json()["error"]
    tensor = {"name": "features", "shape": [1, 12], "datatype": "FP32", "data": [0] * 12}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await service.http.post("/v2/models/big_tip/infer", json={"inputs": [tensor]})).status_code != 200:
            await asyncio.sleep(0.1)
    assert all(record.inputs == [0.0] * 12 for (record,) in (await service.logged()).values())
    await asyncio.to_thread(stack.resume, "valkey")
    await service.until("/health/ready")
    await _answered(service, {"entities": ENTITIES})


def collected(strategy: st.SearchStrategy[Any], examples: int = 150) -> list[Any]:
    """Examples of a strategy, to be sent to a running service."""
    found: list[Any] = []

    @given(strategy)
    @settings(max_examples=examples, database=None)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


async def test_no_request_makes_the_service_fail(service: Service) -> None:
    """Whatever is sent is answered with 2xx or 4xx, as JSON without NaN, and every id that was answered is in the log."""
    key = st.text() | st.integers() | st.none()
    number = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    likely = st.fixed_dictionaries(
        {"zone": key, "driver_id": key, "distance": number, "payment": st.none() | st.text(), "member": st.none() | st.booleans()}
    )
    time = st.integers(0, 3 * NOW_MS) | st.integers(0, 10**15)
    instance = st.fixed_dictionaries({"entities": likely}, optional={"time": time, "id": st.text(min_size=1), "subject": key})
    instance |= st.fixed_dictionaries({"entities": likely | JSON}, optional={"time": JSON, "id": JSON, "subject": JSON})
    bodies = collected(instance | st.fixed_dictionaries({"instances": st.lists(instance, max_size=4)}) | NEARLY, 500)
    bodies += [{"entities": ENTITIES, "time": time} for time in (0, 1, NOW_MS, 253_402_300_799_999)]
    answered = 0
    for path, sent in (("/predict/big_tip", bodies), ("/v2/models/big_tip/infer", collected(BODIES))):
        for body in sent:
            answer = await service.http.post(path, content=json.dumps(body).encode())
            assert answer.status_code < 500, (path, body, answer.text)
            shown = json.loads(answer.content, parse_constant=pytest.fail)
            answered += sum("prediction_id" in item for item in shown.get("predictions", [shown]))
    assert answered > 100
    assert sum(map(len, (await service.logged()).values())) == answered


async def test_what_was_answered_survives_kill_9(service: Service, tmp_path: Path) -> None:
    """A process under load is killed; every prediction that a client received is in the log, once."""
    project = tmp_path / "project.py"
    text = (Path(__file__).parents[1] / "demo_project" / "project.py").read_text()
    project.write_text(text.replace('PROJECT = "demo"', f'PROJECT = "{service.project.name}"'))
    kafka, redis_url = service.settings.kafka.bootstrap_servers, service.settings.redis.url
    process, port = await started("tidemill_inference", environment_of(kafka, redis_url, tmp_path / "offline", project))
    received: set[str] = set()

    async def client(http: httpx.AsyncClient) -> None:
        with contextlib.suppress(httpx.HTTPError):
            while True:
                answer = await http.post("/predict/big_tip", json={"entities": ENTITIES, "features": False})
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:  # as a busy machine answers
                    received.add(answer.json()["prediction_id"])

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False) as http:
        async with asyncio.timeout(180):
            while (await http.get("/v2/models/big_tip/ready")).status_code != 200:
                await asyncio.sleep(0.05)
        clients = [asyncio.create_task(client(http)) for _ in range(8)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(received) < 200:
                await asyncio.sleep(0.01)
        process.kill()
        await asyncio.gather(*clients)
    await process.wait()
    logged = await service.logged()
    assert len(received) >= 200
    assert all(len(logged[name]) == 1 for name in received)


def environment_of(kafka: str, redis_url: str, offline: Path, project: Path) -> dict[str, str]:
    """The environment of a service's process."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TIDEMILL_PROJECT": str(project),
        "TIDEMILL_OFFLINE": str(offline),
        "TIDEMILL_PORT": "0",
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "REDIS_URL": redis_url,
    }


def renamed(folder: Path, name: str) -> Path:
    """The demo project under a name of a test's own, since all tests share one Kafka."""
    project = folder / "project.py"
    text = (Path(__file__).parents[1] / "demo_project" / "project.py").read_text()
    project.write_text(text.replace('PROJECT = "demo"', f'PROJECT = "{name}"'))
    return project


async def started(module: str, environment: dict[str, str]) -> tuple[asyncio.subprocess.Process, int]:
    """A service's process, and its port once it listens."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, env=environment, stderr=asyncio.subprocess.PIPE)
    assert process.stderr
    async with asyncio.timeout(180):
        while (port := json.loads(await process.stderr.readline()).get("port")) is None:
            pass
    return process, port


@pytest.mark.parametrize("module", ["tidemill_serving", "tidemill_inference"])
async def test_a_process_serves_until_it_is_told_to_stop(
    module: str, kafka: str, redis_url: str, tmp_path: Path, topic_prefix: str
) -> None:
    """`python -m` starts, becomes ready and ends on SIGTERM, and with 1 and the reason when a variable is missing."""
    environment = environment_of(kafka, redis_url, tmp_path, renamed(tmp_path, topic_prefix))
    without = {name: value for name, value in environment.items() if name != "REDIS_URL"}
    command = [sys.executable, "-m", module]
    failed = await asyncio.to_thread(subprocess.run, command, env=without, stderr=subprocess.PIPE, timeout=180, check=False)
    assert (failed.returncode, b"REDIS_URL is not set" in failed.stderr) == (1, True)
    process, port = await started(module, environment)
    assert process.stderr
    async with (
        asyncio.timeout(180),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False) as http,
    ):
        while (await http.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.05)
        assert (await http.get("/health/live")).json() == {"status": "alive"}
        process.terminate()
        await process.stderr.read()
        assert await process.wait() in (0, -signal.SIGTERM)  # uvicorn ends by the signal it was sent, after an orderly shutdown
