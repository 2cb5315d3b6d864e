"""A project for each test: on the broker of all tests and the worker's Valkey, or on servers that the test kills."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.rig import Rig


@pytest.fixture
def rig(addresses: tuple[str, str], topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    """Return a project of two views with its own topics and keys; its workers end with the test."""
    rig = Rig(topic_prefix, tmp_path / "project", *addresses)
    yield rig
    rig.stop()
