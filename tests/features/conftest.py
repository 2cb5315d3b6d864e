"""A project for each test: on the broker of all tests and the worker's Valkey, or on servers that the test kills."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.rig import Rig

from tidemill.local.stack import Stack


@pytest.fixture
def addresses(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return Kafka and an empty Valkey: those of `servers` where the test wants these too."""
    if "servers" not in request.fixturenames:
        return request.getfixturevalue("kafka"), request.getfixturevalue("redis_url")
    servers: Stack = request.getfixturevalue("servers")
    return servers.kafka, servers.redis_url


@pytest.fixture
def rig(addresses: tuple[str, str], topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    """Return a project of two views with its own topics and keys; its workers end with the test."""
    rig = Rig(topic_prefix, tmp_path / "project", *addresses)
    yield rig
    rig.stop()
