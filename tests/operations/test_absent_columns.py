"""A view folds a column that its log does not have: whatever is tried, nothing is folded as 0, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest
from tests.features.rig import PROJECT, Traffic, until
from tests.operations.conftest import Mirrored
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations.project import load_project
from tidemill.errors import AbsentColumns
from tidemill.offline.history import PartitionLog
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.online.keys import fence_key

pytestmark = pytest.mark.integration


def declare(rig: Mirrored, name: str, features: str) -> None:
    """One view of an event whose amount is never null."""
    text = PROJECT.format(name=rig.name, dedupe=8).replace("float | None", "float")
    text = text[: text.index("by_card =")] + f'view = FeatureView({name!r}, paid, "card", [{features}], windows=["1h"], partitions=2)\n'
    (rig.folder / "project.py").write_text(text)
    rig.project = load_project(rig.folder)
    rig.traffic = Traffic(rig.project, 1)


def stop(rig: Mirrored) -> None:
    """End its processes."""
    for worker in rig.workers:
        worker.process.terminate()
        worker.process.wait(PATIENCE_SECONDS)


def test_a_column_is_added(rig: Mirrored) -> None:
    """The view does not start, the mend that is printed refuses and changes nothing, a fold from the start refuses; another name works."""
    declare(rig, "by_card", "count()")
    rig.settle(200)
    stop(rig)
    declare(rig, "by_card", 'count(), mean("amount")')
    view = rig.project.views["by_card"]
    fences = [rig.store.get(fence_key(rig.name, view.log, partition)) for partition in range(2)]
    rig.start()
    worker, writer = rig.workers[-2:]
    worker.wait_saying("tidemill rebuild by_card")
    writer.wait_ready()
    process = rig.command("rebuild", "by_card")
    said = " ".join(process.communicate(timeout=180)[0].decode().split())
    assert process.returncode != 0
    assert "lack amount" in said
    assert "give the changed view another name" in said
    assert [rig.store.get(fence_key(rig.name, view.log, partition)) for partition in range(2)] == fences
    with pytest.raises(AbsentColumns):
        PartitionLog(view, OfflineStore(rig.offline).scan(view_folder(view.log)))
    asyncio.run(rig._produce(50))
    rig.wait_mirrored()
    rig.store.flushall()
    worker.wait_saying("lack amount")
    until(lambda: worker.metric("tidemill_events_poison_total") == 0, lambda: "records of before were taken for poison")
    stop(rig)
    declare(rig, "cards", 'count(), mean("amount")')
    rig.settle(200)
    rig.check()
    rig.audited()
