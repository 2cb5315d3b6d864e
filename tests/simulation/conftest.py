"""A process for the histories of the tests: hashes of strings are fixed there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.simulation.running import Cores


@pytest.fixture(scope="session")
def histories() -> Iterator[Cores]:
    """Return one process that runs histories. Tests run in as many workers as there are cores; each worker would pay two seconds for another."""
    with Cores(1) as cores:
        yield cores
