"""A plugin that is asked for, `pytest -p tests.leftovers`: what a test leaves open fails that test.

Else a socket or a transport that nobody closed warns when it is collected, which fails whichever test is running then: another one each time.
It takes 20 ms for each test.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect garbage once the other fixtures are gone: this one is made first."""
    yield
    gc.collect()
