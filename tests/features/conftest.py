"""A broker and a store of our own, since these tests kill them, and a project for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.rig import Rig

from tidemill.local.stack import Stack


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a stack of Kafka and Valkey whose processes may be killed; they come back with their data."""
    with Stack(tmp_path_factory.mktemp("features"), services=(), servers=("kafka", "valkey")) as stack:
        yield stack


@pytest.fixture
def rig(servers: Stack, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    """Return a project of two views with its own topics and keys; its workers end with the test."""
    rig = Rig(topic_prefix, tmp_path / "project", servers.kafka, servers.redis_url)
    yield rig
    rig.stop()
