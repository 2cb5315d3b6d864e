"""A project for each test, on servers that the tests here kill."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.rig import Rig

from tidemill.local.stack import Stack


@pytest.fixture
def rig(servers: Stack, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    """Return a project of two views with its own topics and keys; its workers end with the test."""
    rig = Rig(topic_prefix, tmp_path / "project", servers.kafka, servers.redis_url)
    yield rig
    rig.stop()
