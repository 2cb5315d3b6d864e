"""The operator's parts: stages that are each another, history in files, and the comparison of an archive with what was published."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.faults.closing import Closing
from tests.faults.injections import commands, orders
from tests.faults.injections.ground import Ground
from tests.faults.injections.injection import Missed, until
from tests.faults.injections.proxy import Proxy
from tests.faults.logs import NOW_MS, PROJECT
from tests.faults.operating import History
from tests.faults.stages import Stage
from tests.faults.tally import Tally
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations.project import Project, load_project
from tidemill.kernel.view import ViewKernel
from tidemill.local.stack import Stack
from tidemill.offline.store import OfflineStore
from tidemill.runtime.settings import KafkaSettings


def declared(folder: Path, stage: Stage) -> Project:
    """The project at a stage."""
    if not folder.exists():
        shutil.copytree(PROJECT, folder)
    stage.write(folder)
    return load_project(folder)


def test_every_stage_is_another(tmp_path: Path) -> None:
    """Each change of the project gives the places another definition, and the entities only if both are changed; the grade comes and stays."""
    folder, stage = tmp_path / "project", Stage()
    seen: dict[str, set[str]] = {"entities": set(), "places": set()}
    for number in range(8):
        project = declared(folder, stage)
        assert ("grade" in project.events["fault.measured"].fields) is (number > 1)
        for name, view in project.views.items():
            definition = ViewKernel(view).definition
            assert (definition not in seen[name]) is (name == "places" or number == 0 or number % 3 == 1)
            seen[name].add(definition)
        stage = stage.after(both=number % 3 == 0)
    assert any(feature.name.startswith("mean_grade") for feature in declared(folder, Stage(0, 3, graded=True)).views["places"].served)


def test_history_in_a_file(tmp_path: Path) -> None:
    """Rows are numbered, lie before the run, and one of them is no event."""
    file = History(100, tmp_path / "history" / "0.parquet", 50)
    events = file.write(random.Random(1), NOW_MS, graded=True)
    rows = pq.read_table(file.path).to_pylist()
    assert [row["id"] for row in rows] == [f"100-{number}" for number in range(50)]
    assert [number for number, row in enumerate(rows) if row["entity"] is None] == list(file.refused)
    assert len(events) == 49
    assert max(events["at"].to_pylist()) < NOW_MS - 15 * 60_000
    assert "grade" in events.column_names


def test_commands_that_are_asked_for(tmp_path: Path) -> None:
    """What was asked for is to come until it has ended well; asking twice is asking once, and asking meanwhile is asking again."""
    folder = tmp_path / "orders"
    assert not orders.to_come(folder)
    for command in ("apply", "load", "apply"):
        orders.want(folder, command)
    assert orders.to_come(folder, "load")
    assert not orders.to_come(folder, "prune")
    assert orders.take(folder) == {"apply", "load"}
    assert orders.to_come(folder, "load")
    orders.want(folder, "load")
    orders.ended(folder, {"apply", "load"})
    assert [orders.to_come(folder, command) for command in ("apply", "load")] == [False, True]
    assert orders.take(folder) == {"load"}
    orders.ended(folder, {"load"})
    assert not orders.to_come(folder)


def test_a_command_that_ends_well_without_the_point(tmp_path: Path) -> None:
    """A strike whose point is not reached ends as soon as the command has ended well, and counts for none."""
    strike = next(kind.strike for kind in commands.COMMANDS if kind.name == "prune: killed")
    with Proxy() as redis, Proxy() as kafka, ThreadPoolExecutor(1) as pool:
        rig = Ground(tmp_path, Stack(tmp_path), redis, kafka, tmp_path / "orders")
        struck = pool.submit(strike, rig, random.Random(1))
        until(lambda: orders.to_come(rig.orders, "prune"), "it is asked for")
        orders.ended(rig.orders, orders.take(rig.orders))
        with pytest.raises(Missed, match="prune did not reach"):
            struck.result(PATIENCE_SECONDS)
    assert not orders.waiting(rig.orders, "prune")


@pytest.mark.parametrize("what", ["right", "lost", "doubled", "different"])
def test_an_archive_beside_what_was_published(tmp_path: Path, what: str) -> None:
    """The same rows in another order are right; one too few, too many or with another value is told."""
    tally = Tally()
    closing = Closing(load_project(PROJECT), KafkaSettings(bootstrap_servers="none:1"), OfflineStore(str(tmp_path)), tally)
    expected = pa.table({"id": ["a", "b", "c"], "units": pa.array([1, None, 2.5])})
    found = {
        "right": expected.take([2, 0, 1]), "lost": expected.slice(1), "doubled": pa.concat_tables([expected, expected.slice(2)]),
        "different": expected.set_column(1, "units", pa.array([1, 0.0, 2.5])),
    }[what]  # fmt: skip
    closing._same("events", expected, found, ["id", "units"])
    assert {name: count for name, count in tally.counts.items() if count} == ({} if what == "right" else {what: 1})
