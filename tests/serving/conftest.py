"""A feature serving service in the test's own process, on a real Valkey."""

from collections.abc import AsyncIterator

import httpx
import pytest
from tests.demo_state import Store, demo

from tidemill.http import HttpServer
from tidemill.settings import HttpSettings, RedisSettings
from tidemill_serving.app import create_app


@pytest.fixture
def store(redis_url: str) -> Store:
    """Return an empty store that folds events."""
    return Store(redis_url)


@pytest.fixture
async def http(redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service and return a client of it."""
    server = HttpServer(create_app(demo(), RedisSettings(url=redis_url)), HttpSettings(port=0))
    async with server, httpx.AsyncClient(base_url=server.url, timeout=20, trust_env=False) as client:
        yield client
