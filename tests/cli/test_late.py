"""What `tidemill status` says about late events, alerts and retrainings where nobody can be asked."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tidemill.cli.alerts import alerts_line
from tidemill.cli.late import late_line
from tidemill.cli.retraining import status_line
from tidemill.local.addresses import Addresses

PROJECT = Path(__file__).parents[1] / "demo_project"
RUNNING = Addresses(
    "127.0.0.1:1", "redis://127.0.0.1:1", "offline", str(PROJECT), {"features": "http://127.0.0.1:1"}, {}, owner=0, supervisor=""
)


def test_servers_that_are_away_are_told() -> None:
    """The other lines of the command stand; this one says why it knows nothing."""
    said = late_line(RUNNING)
    assert said is not None
    assert said.startswith("events too late: not known (")


@pytest.mark.parametrize("without", [{"kafka": ""}, {"redis_url": ""}, {"project": None}, {"urls": {"serving": "http://127.0.0.1:1"}}])
def test_a_stack_that_folds_nothing_says_nothing(without: dict[str, object]) -> None:
    """There are no views that could refuse an event."""
    assert late_line(msgspec.structs.replace(RUNNING, **without)) is None


def test_alerts_that_cannot_be_read_are_told() -> None:
    """Where drift detection runs and Kafka does not answer, that is said; where it does not run, nothing."""
    watched = msgspec.structs.replace(RUNNING, urls={"drift": "http://127.0.0.1:1"})
    assert (alerts_line(watched) or "").startswith("alerts: not known (")
    assert alerts_line(RUNNING) is None


def test_retrainings_that_cannot_be_read_are_told() -> None:
    """Where the service runs and Kafka does not answer, that is said; where it does not run, nothing."""
    retrained = msgspec.structs.replace(RUNNING, urls={"retraining": "http://127.0.0.1:1"})
    assert (status_line(retrained) or "").startswith("retraining: not known (")
    assert status_line(RUNNING) is None
