"""A version is made again to the bit, and what keeps it from that is named."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tests.demo_state import NOW_MS, demo
from tests.proof.world import World
from tests.training.town import FOLDER, town

from tidemill import ByGroup, Search, Select, Training
from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError
from tidemill.models.artifact import Artifact, load_artifact
from tidemill.training.made_with import FILE, MadeWith, data_digest, stored_made_with
from tidemill.training.reproduce import Reproduced, difference, reproduce, stored_set
from tidemill_training.app import train

pytestmark = pytest.mark.slow
LATER = NOW_MS + 10**9


def forest(**options: Any) -> Any:
    """A pipeline with a seed."""
    return RandomForestClassifier(5, **{"max_depth": 4, "random_state": 3, **options})


def with_pipeline(pipeline: Any, training: Training = Training()) -> Project:  # noqa: B008 - it never changes
    """The tests' project with another pipeline, and another way to train it."""
    models: dict[str, Model] = {"big_tip": dataclasses.replace(demo().models["big_tip"], pipeline=pipeline, training=training)}
    return dataclasses.replace(demo(), models=models)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A town with enough trips to learn from."""
    return town(tmp_path_factory.mktemp("offline"), 120)


@pytest.fixture(scope="module")
def artifact(world: World) -> Artifact:
    """A trained version."""
    project = with_pipeline(forest)
    trained = train(project, str(FOLDER), project.models["big_tip"], str(world.root), LATER, lambda _: None)
    return load_artifact(str(world.root), trained.artifact, trained.sha256)


def again(world: World, artifact: Artifact, pipeline: Any = forest) -> Reproduced:
    """The version made again."""
    return reproduce(with_pipeline(pipeline), str(FOLDER), world.store, artifact, lambda _: None)


def folder_of(world: World, artifact: Artifact) -> Path:
    """Where a version is stored."""
    return world.root / "models" / "big_tip" / artifact.manifest.version


def recorded(world: World, artifact: Artifact) -> MadeWith:
    """What it was made with."""
    found = stored_made_with(str(world.root), artifact.manifest)
    assert found is not None
    return found


def test_a_version_is_made_again_to_the_bit(world: World, artifact: Artifact) -> None:
    """The same archive, code, seed and packages give the same file; the metrics and golden rows are the same, too."""
    found = again(world, artifact)
    assert (found.otherwise, found.from_archive, found.same_file, found.equal, found.rows) == ([], True, True, True, artifact.manifest.rows)
    assert msgspec.structs.replace(found.version.artifact.manifest, created=0) == msgspec.structs.replace(artifact.manifest, created=0)
    assert recorded(world, artifact).pipeline.startswith("sklearn.ensemble._forest.RandomForestClassifier(bootstrap=True, ")
    assert "random_state=3" in recorded(world, artifact).pipeline


def test_what_a_run_found_is_taken_again(tmp_path: Path) -> None:
    """Groups that are held out, chosen inputs and searched parameters are recorded: the same file comes from them, without another search."""
    chosen = Training(
        split=ByGroup("subject", holdout=0.4),
        select=Select(rounds=2, most=4, stable=0.5, least=-1.0),
        search=Search(lambda trial: {"max_depth": trial.suggest_int("max_depth", 1, 2)}, trials=3, folds=2),
    )
    project, world = with_pipeline(lambda: RandomForestClassifier(1, random_state=3), chosen), town(tmp_path, 300)
    trained = train(project, str(FOLDER), project.models["big_tip"], str(world.root), LATER, lambda _: None)
    artifact = load_artifact(str(world.root), trained.artifact, trained.sha256)
    record = recorded(world, artifact)
    assert (len(record.chosen.inputs), [*record.chosen.parameters], len(record.cuts)) == (4, ["max_depth"], 1)
    found = reproduce(project, str(FOLDER), world.store, artifact, lambda _: None)
    assert (found.otherwise, found.from_archive, found.same_file, found.equal) == ([], True, True, True)


def test_other_parameters_are_named(world: World, artifact: Artifact) -> None:
    """Another depth is another pipeline and gives other answers, which are told."""
    found = again(world, artifact, lambda: forest(max_depth=1))
    assert [item.what for item in found.otherwise] == ["pipeline"]
    assert "max_depth=4" in found.otherwise[0].then
    assert "max_depth=1" in found.otherwise[0].now
    assert (found.same_file, found.equal, found.allowed) == (False, False, False)


def test_a_pipeline_without_a_seed_differs(world: World) -> None:
    """Nothing that is recorded is otherwise, and still the answers differ: that is told, too."""
    np.random.seed(1)
    project = with_pipeline(lambda: forest(random_state=None))
    trained = train(project, str(FOLDER), project.models["big_tip"], str(world.root), LATER, lambda _: None)
    found = again(world, load_artifact(str(world.root), trained.artifact, trained.sha256), lambda: forest(random_state=None))
    assert (found.otherwise, found.from_archive, found.equal) == ([], True, False)


def test_packages_files_and_machine_are_named(world: World, artifact: Artifact) -> None:
    """Each by its name, with what it was and what it is."""
    path = folder_of(world, artifact) / FILE
    before, record = path.read_bytes(), recorded(world, artifact)
    other = msgspec.structs.replace(
        record,
        machine="z80 CP/M",
        packages={**record.packages, "numpy": "1.0", "lost": "2"},
        project={"project.py": "ab" * 32},
        house="cd" * 32,
    )
    try:
        path.write_bytes(msgspec.json.encode(other))
        found = again(world, artifact)
        path.write_bytes(b"{}")
        unknown = again(world, artifact)
    finally:
        path.write_bytes(before)
    assert [item.what for item in found.otherwise] == ["package numpy", "package lost", "machine", "file project.py", "tidemill"]
    assert (found.otherwise[1].then, found.otherwise[1].now) == ("2", "none")
    assert found.equal
    assert [item.what for item in unknown.otherwise] == ["record"]
    assert (unknown.from_archive, unknown.equal) == (False, True)


def test_data_that_changed_is_named_and_the_stored_set_is_used(world: World, artifact: Artifact, tmp_path: Path) -> None:
    """An archive that lost events, or has others, gives another set; the version is still made again from the set that was stored."""
    for count, seed, says in ((60, 1, "the archive gives 60 rows now"), (120, 2, "the archive gives ")):
        other = town(tmp_path / f"{count}-{seed}", count, seed)
        shutil.copytree(folder_of(world, artifact), folder_of(other, artifact))
        found = again(other, artifact)
        (data,) = found.otherwise
        assert (data.what, data.then) == ("data", f"{artifact.manifest.rows:,} rows")
        assert data.now.endswith("; the stored set is used")
        assert says.split(" 60")[0] in data.now
        assert (found.from_archive, found.equal) == (False, True)


def test_a_stored_set_is_what_was_trained_on(world: World, artifact: Artifact) -> None:
    """It is read back to the bit; without it nothing can be made again."""
    stored = stored_set(str(world.root), artifact)
    assert (len(stored), [item.name for item in stored.inputs]) == (artifact.manifest.rows, demo().models["big_tip"].input_names)
    path = folder_of(world, artifact) / "training.parquet"
    moved = path.rename(path.with_name("away"))
    try:
        with pytest.raises(ArtifactError, match=r"training\.parquet cannot be read"):
            again(world, artifact)
        path.write_bytes(b"nothing")
        with pytest.raises(ArtifactError, match=r"training\.parquet of big_tip .* cannot be read"):
            again(world, artifact)
    finally:
        moved.rename(path)


def test_a_set_of_classes_is_read_back(world: World, artifact: Artifact) -> None:
    """Texts as labels are the same texts, whatever their places; one that is another is a difference."""
    stored = stored_set(str(world.root), artifact)
    places = np.asarray(np.arange(len(stored)) % 3, np.float64)
    one = dataclasses.replace(stored, labels=places, texts=("late", "cancelled", "on time"))
    other = dataclasses.replace(stored, labels=(places + 1) % 3, texts=("on time", "late", "cancelled"))
    assert one.table()["label"].to_pylist() == other.table()["label"].to_pylist()
    assert data_digest(one) == data_digest(other)
    assert "and 0 other labels" in difference(one, other)
    moved = dataclasses.replace(one, labels=np.asarray(np.where(np.arange(len(one)) == 4, 0.0, one.labels), np.float64))
    assert data_digest(one) != data_digest(moved)
    assert difference(one, moved).endswith("and 1 other labels")
    path = folder_of(world, artifact) / "training.parquet"
    before = path.read_bytes()
    try:
        path.write_bytes(one.to_parquet())
        assert data_digest(stored_set(str(world.root), artifact)) == data_digest(one)
    finally:
        path.write_bytes(before)


FITS = """
import hashlib
import numpy as np
from tests.live_project.project import pipeline
from tidemill.training.conversion import to_onnx
rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
print(hashlib.sha256(to_onnx(pipeline().fit(rows, rows[:, 0] > 0), 3, probability=True)).hexdigest())
"""


def test_the_file_is_the_same_in_every_process() -> None:
    """However the process hashes texts, in whose order skl2onnx names versions of operators."""
    root = Path(__file__).parents[2]
    found = set()
    for seed in ("1", "3"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(map(str, (root / "shared", root / "services", root))),
        }
        done = subprocess.run([sys.executable, "-c", FITS], env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout.strip())
    assert len(found) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_version_that_serves_itself_is_made_again(world: World) -> None:
    """By what its worker answers."""
    declared = with_pipeline(lambda: make_pipeline(FunctionTransformer(np.tanh), forest()))
    model = dataclasses.replace(declared.models["big_tip"], engine="python")
    project = dataclasses.replace(declared, models={"big_tip": model})
    trained = train(project, str(FOLDER), model, str(world.root), LATER + 5_000, lambda _: None)
    made = load_artifact(str(world.root), trained.artifact, trained.sha256)
    found = reproduce(project, str(FOLDER), world.store, made, lambda _: None)
    assert (found.otherwise, found.from_archive, found.equal, found.rows) == ([], True, True, made.manifest.rows)
    assert found.version.artifact.manifest.own_pipeline is not None
