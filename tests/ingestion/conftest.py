"""Services over a project of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.declarations.project import Project
from tidemill.local.services import choose
from tidemill.local.stack import External, Stack


@pytest.fixture
def stack(kafka: str, redis_url: str, project: Project, tmp_path: Path) -> Iterator[Stack]:
    """Ingestion, feature computation, the offline writer and feature serving."""
    services = choose(["ingestion", "features", "offline", "serving"])
    with Stack(tmp_path / "home", project=str(tmp_path), services=services, external=External(kafka=kafka, redis_url=redis_url)) as made:
        yield made
