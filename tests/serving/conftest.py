"""A feature serving service in the test's own process, on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from tests.beside import beside
from tests.demo_state import Store, demo

from tidemill.declarations.project import Project
from tidemill.runtime.http import HttpServer
from tidemill.runtime.settings import HttpSettings, KafkaSettings, ProjectSettings, RedisSettings
from tidemill_serving.app import build
from tidemill_serving.settings import ServingSettings


@pytest.fixture
def store(redis_url: str) -> Store:
    """Return an empty store that folds events."""
    return Store(redis_url)


@asynccontextmanager
async def serving(project: Project, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run a service of a project; gives a client of it, once it is ready."""
    http = HttpSettings(port=0)
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")  # a project that is given does not follow the catalogue
    settings = ServingSettings(project=ProjectSettings(project="unused"), http=http, kafka=kafka, redis=RedisSettings(url=redis_url))
    service = build(settings, project)
    server = HttpServer(service.app, http)
    async with beside(service.work()), server, httpx.AsyncClient(base_url=server.url, timeout=180, trust_env=False) as client:
        async with asyncio.timeout(180):
            while (await client.get("/health/ready")).status_code != httpx.codes.OK:
                await asyncio.sleep(0.02)
        yield client


@pytest.fixture
async def http(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service and return a client of it. On a busy machine Redis may be slow to answer, and is not away."""
    monkeypatch.setattr("tidemill_serving.app.REDIS_TIMEOUT_SECONDS", 20.0)
    async with serving(demo(), redis_url) as client:
        yield client
