"""A training that is killed anywhere goes on by the same command, and ends as one that was never killed."""

from __future__ import annotations

import json
import random
import shutil
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from tests.training.killed import CREATED_MS, Ending, context, deployed, in_process
from tests.training.town import town

from tidemill.cli.models import ended_by, ended_stage
from tidemill.training.stages.records import StageRecord, run_name
from tidemill_training.tracking import Tracker

VERSION = run_name(CREATED_MS)
KILLED = -signal.SIGKILL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """What every process begins with is imported once."""
    return context()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A town of which nothing was trained."""
    root = tmp_path_factory.mktemp("town") / "offline"
    town(root, 60)
    return root


@pytest.fixture(scope="module")
def whole(empty: Path, processes: ForkServerContext) -> Path:
    """The same town after a training that nobody killed."""
    root = copied(empty, "whole")
    assert in_process(processes, root, Ending()).code == 0
    return root


def copied(root: Path, name: str) -> Path:
    """A copy beside it."""
    return Path(shutil.copytree(root, root.parent / name))


def stored(root: Path) -> dict[str, bytes]:
    """The files of the version."""
    folder = root / "models" / "big_tip" / VERSION
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}


def stages(root: Path) -> dict[str, bytes]:
    """The records of the stages that are done, by stage."""
    found = root.glob(f"training/big_tip/{VERSION}/*.record.json")
    return {path.name.removesuffix(".record.json"): path.read_bytes() for path in found}


def test_a_run_is_written_down(whole: Path) -> None:
    """Each stage has a record with its inputs, time and result; what only the stages needed is deleted once the version is there."""
    records = {name: msgspec.json.decode(content, type=StageRecord) for name, content in stages(whole).items()}
    assert {"set", "fit", "evaluate", "export", "report", "store", "deploy", "track"} <= records.keys()
    assert records["check"].inputs["set"] == records["set"].digest
    assert records["export"].inputs["fit"] == records["fit"].digest
    assert "LogisticRegression" in records["fit"].parameters["pipeline"]
    assert all(record.seconds >= 0 and record.said for record in records.values())
    folder = whole / "training" / "big_tip" / VERSION
    assert json.loads((folder / "ended.json").read_bytes())["said"] == VERSION
    assert not [*folder.glob("*.pickle"), *folder.glob("*.msgpack"), *folder.glob("*.part")]
    assert deployed(whole) == [VERSION]


@pytest.mark.parametrize("seed", range(2))
def test_killed_again_and_again(seed: int, empty: Path, whole: Path, processes: ForkServerContext) -> None:
    """Before a rename of a file here and there until it is through: the version has the same bytes, no stage that was done is done again, and
    nothing is deployed before the version is there."""
    root, draw = copied(empty, f"renames{seed}"), random.Random(seed)
    ends, told = list[int](), list[str]()
    while not ends or ends[-1] == KILLED:
        before = stages(root)
        ended = in_process(processes, root, Ending(rename=draw.randint(4, 14)))
        ends.append(ended.code)
        assert {name: stages(root)[name] for name in before} == before
        assert {note.split()[1] for note in ended.notes if note.startswith("stage ")} == before.keys()
        assert set(deployed(root)) <= {VERSION}
        assert not deployed(root) or "manifest.json" in stored(root)
        told += ended.notes
    assert (len(ends) > 2, ends[-1]) == (True, 0)
    assert any(f"going on with run {VERSION} of big_tip" in note for note in told)
    assert stored(root) == stored(whole)
    assert set(deployed(root)) == {VERSION}


@pytest.mark.parametrize("seed", range(1))
def test_killed_at_any_moment(seed: int, empty: Path, whole: Path, processes: ForkServerContext) -> None:
    """After some milliseconds, wherever it is."""
    root, draw = copied(empty, f"moments{seed}"), random.Random(seed)
    ended = in_process(processes, root, Ending(seconds=draw.uniform(0.05, 0.6)))
    assert ended.code in (KILLED, 0)
    assert in_process(processes, root, Ending()).code == 0
    assert stored(root) == stored(whole)
    assert set(deployed(root)) == {VERSION}


def test_killed_while_mlflow_is_told(empty: Path, processes: ForkServerContext) -> None:
    """After its last write but one to a real database: MLflow ends with one run, whole, and one version with the alias; all that came before
    stays done, and the version is announced once."""
    root = copied(empty, "told")
    assert in_process(processes, root, Ending(mlflow=True, call="create_model_version")).code == KILLED
    assert {"store", "deploy"} <= stages(root).keys()
    assert in_process(processes, root, Ending(mlflow=True)).code == 0
    assert deployed(root) == [VERSION]

    def look(client: Any) -> None:
        (run,) = client.search_runs([found.experiment_id for found in client.search_experiments(filter_string="name = 'big_tip'")])
        assert (run.info.status, run.info.run_name) == ("FINISHED", VERSION)
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"model", "report", "plots"}
        (version,) = client.search_model_versions("name='big_tip'")
        assert (version.run_id, client.get_model_version_by_alias("big_tip", "champion").version) == (run.info.run_id, version.version)

    Tracker.for_store(str(root)).asked(look)


class Hungry(LogisticRegression):  # type: ignore[misc]
    """It wants more memory than there is."""

    def fit(self, rows: Any, labels: Any) -> Any:
        """Fits, once it has it."""
        self.much = np.ones(2_000_000_000)
        return super().fit(np.nan_to_num(rows), labels)


def test_no_memory_is_stated(empty: Path, processes: ForkServerContext) -> None:
    """The stage is named, nothing is stored or deployed, and the run is left to be gone on with."""
    root = copied(empty, "hungry")
    ended = in_process(processes, root, Ending(stage="fit", more=1_000_000_000), Hungry)
    assert (ended.code, stored(root), deployed(root)) == (1, {}, [])
    assert ended.error.startswith("training of 'big_tip': not enough memory in stage 'fit'; run the same command again where there is more")
    assert stages(root).keys() == {"set", "check", "split"}
    assert (ended_stage(str(root), "big_tip"), ended_stage(str(root), "fare")) == ("in stage fit", "")
    again = in_process(processes, root, Ending(stage="fit", more=1_000_000_000), Hungry)
    assert again.notes[0] == f"going on with run {VERSION} of big_tip, which was ended in stage 'fit'; --new begins another"
    assert again.notes[1].startswith("stage set was done: ")


def test_what_is_refused_is_over(empty: Path, processes: ForkServerContext) -> None:
    """A pipeline that cannot be served ends its run; the next training is another run."""
    root = copied(empty, "refused")
    ended = in_process(processes, root, Ending(), LogisticRegression)  # without an imputer
    assert ended.code == 1
    assert json.loads((root / "training" / "big_tip" / VERSION / "ended.json").read_bytes()) | {"at": 0} == {
        "result": "refused", "said": ended.error, "at": 0,
    }  # fmt: skip
    assert in_process(processes, root, Ending()).code == 0
    assert [path.name for path in (root / "models" / "big_tip").iterdir()] == [run_name(CREATED_MS + 1)]


def test_a_signal_is_stated() -> None:
    """Who started the job says what ended it, and that the same command goes on; that it may have been memory where it may."""
    assert str(ended_by("m", signal.SIGKILL)) == (
        "training 'm' was ended by SIGKILL; that is how the system ends what needs more memory than there is; what serves is as it was; "
        "run the same command again: it goes on where it was"
    )
    assert "memory" not in str(ended_by("m", signal.SIGTERM))
    assert str(ended_by("m", signal.SIGKILL, "in stage fit")).startswith("training 'm' was ended in stage fit by SIGKILL; that is how")
