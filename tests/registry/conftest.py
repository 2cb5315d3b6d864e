"""A real registry for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.registry.apicurio import registry as running


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a real schema registry."""
    base = tmp_path_factory.getbasetemp()
    with running(Path(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)) as url:
        yield url
