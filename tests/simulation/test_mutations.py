"""A check that cannot fail is worth nothing: with one safeguard taken out, histories go wrong; or it is shown that they cannot."""

from __future__ import annotations

import pytest
from tests.simulation.mutations import MUTATIONS
from tests.simulation.running import Cores

pytestmark = pytest.mark.slow
LIMIT = 10_000
SAFE_HISTORIES = 100
RARE = ("lazy-load", "unchecked-refreshed", "unacknowledged", "not-placed")
"""Need several coincidences, hence some thousand histories, or a hundred of a changing catalogue, which take six times as long."""

CAUGHT = [
    pytest.param(name, marks=pytest.mark.integration if name in RARE else ()) for name, mutation in MUTATIONS.items() if not mutation.safe
]
SAFE = [
    pytest.param(name, marks=pytest.mark.integration if mutation.filling else ()) for name, mutation in MUTATIONS.items() if mutation.safe
]


@pytest.mark.parametrize("name", CAUGHT)
def test_without_a_safeguard(name: str, histories: Cores, record_property: pytest.FixtureRequest) -> None:
    """Histories go wrong, and soon."""
    found = histories.first_wrong(name, LIMIT)
    assert found is not None, f"{MUTATIONS[name].what}: not caught by {LIMIT} histories"
    record_property("histories", found[0] + 1)  # type: ignore[operator]
    record_property("verdict", found[1])  # type: ignore[operator]


@pytest.mark.parametrize("name", SAFE)
def test_what_is_safe(name: str, histories: Cores) -> None:
    """What another safeguard covers does no harm."""
    outcome = histories.run_all(range(SAFE_HISTORIES), name)
    assert not outcome.wrong, f"{MUTATIONS[name].safe}: {outcome}"
