"""Generated projects on real Kafka, Valkey and services. `make soak` runs many: python -m tests.verify."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.verify.live import live

from tidemill.local.stack import External

SEED = 31
pytestmark = [pytest.mark.integration, pytest.mark.last]


def test_a_project_changes_while_processes_are_killed(kafka: str, redis_url: str, tmp_path: Path) -> None:
    """A model was trained before the change, events arrive all the time, the offline writer is away while it is applied, and `tidemill verify`
    finds no difference."""
    found = live(SEED, tmp_path / "generated", External(kafka, redis_url), modelled=True)
    assert found.values > 200
    assert found.changes
    assert found.predictions
    assert found.undecided + found.withheld < found.values / 2
    assert found.killed
