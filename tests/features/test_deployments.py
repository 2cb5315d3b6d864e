"""Views come and go with a restart, and workers of two versions run side by side: every declared partition is folded, exactly."""

from __future__ import annotations

import signal

import pytest
from tests.features.rig import PROJECT, Rig, Traffic

from tidemill.declarations.project import load_project

pytestmark = pytest.mark.integration

ADDED = """
by_both = FeatureView("by_both", paid, "card", [count(), mean("amount")], windows=["1h"], partitions=3)
"""


def declare(rig: Rig, *, added: bool = False, removed: bool = False) -> None:
    """Write the project down with a view more, or without the second of its views; what is produced is for those that are left."""
    text = PROJECT.format(name=rig.name, dedupe=rig.dedupe)
    text = text[: text.index("by_shop =")] if removed else text
    (rig.folder / "project.py").write_text(text + (ADDED if added else ""))
    rig.project = load_project(rig.folder)
    rig.traffic = Traffic(rig.project, rig.seed + 1)


@pytest.mark.parametrize(("added", "removed"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_views_change_with_a_restart(rig: Rig, added: bool, removed: bool, end: signal.Signals) -> None:
    """Stopped or killed, and back at once with other views: all that are declared are folded within seconds."""
    rig.produce(200)
    worker = rig.worker()
    rig.wait_folded()
    worker.send(end)
    worker.wait_ended()
    declare(rig, added=added, removed=removed)
    rig.produce(200)
    after = rig.worker()
    rig.wait_folded()
    after.wait_ready()
    rig.check()


@pytest.mark.parametrize(("added", "removed"), [(True, False), (False, True), (True, True)])
def test_two_versions_side_by_side(rig: Rig, added: bool, removed: bool) -> None:
    """A rolling deployment: each view is folded by a worker that declares it, also after the older worker is gone."""
    rig.produce(200)
    old = rig.worker()
    rig.wait_folded()
    declare(rig, added=added, removed=removed)
    rig.produce(200)
    new = rig.worker()
    rig.wait_folded()
    new.wait_ready()
    old.send(signal.SIGTERM)
    old.wait_ended()
    rig.produce(200)
    rig.worker()
    rig.wait_folded()
    rig.check()
