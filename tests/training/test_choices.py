"""How a model may be trained otherwise: splits, weights, own metrics, chosen inputs, searched parameters."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from tests.demo_state import demo
from tests.training.killed import CREATED_MS, Ending, context, in_process
from tests.training.test_evaluate import INPUTS, boosted, examples
from tests.training.town import FOLDER, town

from tidemill import ByGroup, ByTime, RollingOrigin, Search, Select, Training
from tidemill.declarations import Model
from tidemill.declarations.project import load_project
from tidemill.errors import TidemillError
from tidemill.training.conversion import to_onnx
from tidemill.training.dataset import TrainingSet
from tidemill.training.fitting import fit, outputs
from tidemill.training.stages.files import RunFiles
from tidemill.training.stages.ray_pool import RayUnavailable
from tidemill.training.stages.records import run_name
from tidemill.training.stages.search import fold_loss, search, with_parameters
from tidemill.training.stages.select import ChosenPlaces, choose, with_chosen
from tidemill.training.stages.split import CutSet, cut


def model(pipeline: Any = boosted, **training: Any) -> Model:
    """The tests' model, trained otherwise."""
    return dataclasses.replace(demo().models["big_tip"], pipeline=pipeline, training=Training(**training))


def linear() -> Any:
    """The least pipeline."""
    return make_pipeline(SimpleImputer(), LogisticRegression())


def quiet(_: str) -> None:
    """Takes notes that nobody reads."""


def unseen(_what: str, _done: int, _total: int) -> None:
    """Takes what nobody watches."""


def test_by_time() -> None:
    """The last rows are held out: the declared share, a fifth without one."""
    data = examples()
    assert cut("m", data, ByTime()).cuts == [800]
    found = CutSet.of(data, cut("m", data, ByTime(holdout=0.3)))
    assert (found.cuts, len(found.before), found.examples is data) == ([700], 700, True)


def test_a_rolling_origin() -> None:
    """Each stretch is answered by a pipeline that was fitted on everything before it, and on nothing after."""
    data = examples()
    made = cut("m", data, RollingOrigin(4))
    assert made.cuts == [800, 850, 900, 950]
    fitted = fit(model(), data, made.cuts)
    for start in made.cuts:
        earlier = boosted().fit(data.matrix[:start], data.labels[:start])
        expected = outputs(earlier, data.matrix[start : start + 50], probability=True)
        assert fitted.holdout_output[start - 800 : start - 750].tobytes() == expected.tobytes()
    assert fitted.metrics["log_loss"] == pytest.approx(log_loss(data.labels[800:], fitted.holdout_output), abs=1e-6)


def test_groups_stay_together() -> None:
    """No value of the field is on both sides; the same groups are held out whatever rows there are; all columns move with their rows."""
    data = examples()
    names = np.array([f"g{i % 37}" for i in range(len(data))])
    data = dataclasses.replace(data, given={"zone": pa.array(names.tolist())})
    found = CutSet.of(data, cut("m", data, ByGroup("zone")))
    kept, held = (set(found.examples.given["zone"].to_pylist()[part]) for part in (slice(found.cuts[0]), slice(found.cuts[0], None)))
    assert (kept & held, len(kept) + len(held)) == (set(), 37)
    assert 0.05 < len(held) / 37 < 0.45
    again = dataclasses.replace(data, given={"zone": data.given["zone"].take(pa.array(range(999, -1, -1)))})
    other = CutSet.of(again, cut("m", again, ByGroup("zone")))
    assert set(other.examples.given["zone"].to_pylist()[other.cuts[0] :]) == held
    row = int(np.flatnonzero(found.examples.times_ms == data.times_ms[5])[0])
    assert np.array_equal(found.examples.values[row], data.values[5])
    assert (found.examples.subjects[row], found.examples.given["zone"][row].as_py()) == (data.subjects[5], names[5])
    by_subject = CutSet.of(data, cut("m", data, ByGroup("subject")))
    assert 100 < len(data) - by_subject.cuts[0] < 300
    with pytest.raises(TidemillError, match=r"1 values of 'zone' are too few to hold some out; split by a field with more values"):
        cut("m", dataclasses.replace(data, given={"zone": pa.array(["a"] * 1000)}), ByGroup("zone"))


def weighted(weights: Sequence[float | None]) -> TrainingSet:
    """The examples with a weight for each."""
    return dataclasses.replace(examples(), given={"distance": pa.array(weights, pa.float64())})


@pytest.mark.parametrize("pipeline", [linear, boosted])
def test_weights_are_given_to_the_last_step(pipeline: Any) -> None:
    """The same pipeline as scikit-learn fits with sample_weight; rows of no weight are as if they were not there."""
    weights = [float(i % 3) for i in range(1000)]
    data = weighted(weights)
    found = fit(model(pipeline, weights="distance"), data).pipeline
    name = "logisticregression__sample_weight" if pipeline is linear else "sample_weight"
    expected = pipeline().fit(data.matrix, data.labels, **{name: np.array(weights)})
    assert outputs(found, data.matrix, probability=True).tobytes() == outputs(expected, data.matrix, probability=True).tobytes()
    plain = fit(model(pipeline), data).pipeline
    assert outputs(found, data.matrix, probability=True).tobytes() != outputs(plain, data.matrix, probability=True).tobytes()


def test_weights_that_cannot_be_used() -> None:
    """They are refused by their name; so is a step that takes none."""
    with pytest.raises(TidemillError, match=r"2 rows have no weight 'distance', or a negative one; give weights of 0 and more"):
        fit(model(weights="distance"), weighted([None, -1.0, *[1.0] * 998]))
    with pytest.raises(TidemillError, match="sample_weight"):
        fit(model(lambda: make_pipeline(SimpleImputer(), KNeighborsClassifier()), weights="distance"), weighted([1.0] * 1000))


def test_own_metrics() -> None:
    """They get labels and outputs of the held-out rows, and stand among the others; one that fails is named."""
    data = examples()
    fitted = fit(model(metrics={"cost": lambda labels, said: float(np.sum(labels * (said < 0.5)))}), data)
    assert fitted.metrics["cost"] == np.sum(data.labels[800:] * (fitted.holdout_output < 0.5))
    with pytest.raises(TidemillError, match=r"metric 'cost' fails: ZeroDivisionError.*; give a function of labels and outputs"):
        fit(model(metrics={"cost": lambda labels, said: 1 / 0}), data)
    with pytest.raises(TidemillError, match=r"metric 'cost' gives nan"):
        fit(model(metrics={"cost": lambda labels, said: float("nan")}), data)


def test_inputs_that_help_are_chosen() -> None:
    """Those that help in most rounds, in their order; the pipeline sees them alone, and its ONNX form takes all inputs."""
    data = examples()
    chosen = choose(model(), data, Select(rounds=4, least=0.005), quiet, unseen)
    assert chosen.inputs == ["speed", "kind"]
    assert chosen.shares["speed"] == 1.0 > chosen.shares["load"]
    assert choose(model(), data, Select(rounds=2, most=1), quiet, unseen).inputs == ["speed"]
    made = with_chosen(linear, ChosenPlaces([0, 2], [spec.name for spec in INPUTS]))().fit(data.matrix, data.labels)
    alone = linear().fit(data.matrix[:, [0, 2]], data.labels)
    assert np.array_equal(made.predict_proba(data.matrix), alone.predict_proba(data.matrix[:, [0, 2]]))
    assert [name for name, _ in made.steps] == ["selected", "simpleimputer", "logisticregression"]
    assert to_onnx(made, INPUTS, probability=True)
    assert with_chosen(boosted, ChosenPlaces([0], [spec.name for spec in INPUTS]))().fit(data.matrix, data.labels).n_features_in_ == 3


def test_when_nothing_helps() -> None:
    """It is said, and nothing is fitted."""
    data = examples()
    noise = dataclasses.replace(data, labels=np.random.default_rng(1).permutation(data.labels))
    with pytest.raises(TidemillError, match=r"no input helps in 100% of 3 rounds; lower least or stable"):
        choose(model(), noise, Select(rounds=3, stable=1.0, least=0.05), quiet, unseen)


def space(trial: Any) -> dict[str, Any]:
    """Of boosted trees."""
    return {"learning_rate": trial.suggest_float("learning_rate", 0.001, 0.5, log=True), "max_iter": trial.suggest_int("max_iter", 1, 20)}


def searched(folder: Path, notes: list[str], wanted: Search, pipeline: Any = boosted) -> Any:
    """A search in a run's folder."""
    folder.mkdir(exist_ok=True)
    return search(model(pipeline, search=wanted), "none", examples(400), RunFiles(folder), "k", notes.append, unseen)


def poor() -> Any:
    """A pipeline that can be better."""
    return HistGradientBoostingClassifier(max_iter=2, learning_rate=0.01, early_stopping=False, random_state=0)


def test_parameters_are_searched(tmp_path: Path) -> None:
    """The best of the trials is better than what was declared, is measured as the rest, and bad ones are pruned."""
    notes = list[str]()
    best = searched(tmp_path, notes, Search(space, trials=12), poor)
    assert (best.trials, best.failed, len(notes)) == (12, 0, 12)
    assert best.loss < best.declared
    assert best.pruned > 0
    again = model(poor, search=Search(space))
    measured = np.mean([fold_loss(again, examples(400), best.parameters, fold) for fold in range(3)])
    assert best.loss == pytest.approx(measured)
    assert with_parameters(poor, best.parameters)().get_params()["max_iter"] == best.parameters["max_iter"]


def test_a_search_goes_on_within_its_trials(tmp_path: Path) -> None:
    """One that was ended after some trials does the rest, and finds what one that was never ended finds."""
    whole, parts = list[str](), list[str]()
    best = searched(tmp_path / "a", whole, Search(space, trials=9), poor)
    wanted = Search(space, trials=9)

    def stops(text: str) -> None:
        parts.append(text)
        if len(parts) == 5:
            raise KeyboardInterrupt

    (tmp_path / "b").mkdir()
    with pytest.raises(KeyboardInterrupt):
        search(model(poor, search=wanted), "none", examples(400), RunFiles(tmp_path / "b"), "k", stops, unseen)
    rest = list[str]()
    assert searched(tmp_path / "b", rest, wanted, poor) == best
    assert [*parts, *rest] == whole


def test_what_is_declared_may_be_best(tmp_path: Path) -> None:
    """Then nothing is changed; parameters with which nothing can be fitted are failed trials."""

    def bad(trial: Any) -> dict[str, Any]:
        return {"max_iter": trial.suggest_int("max_iter", 1, 2), "learning_rate": trial.suggest_categorical("rate", [-1.0, 0.001])}

    best = searched(tmp_path, [], Search(bad, trials=8))
    assert (best.parameters, best.loss) == ({}, best.declared)
    assert best.failed > 0
    with pytest.raises(TidemillError, match=r"no trial of 2 could be measured"):
        searched(tmp_path / "c", [], Search(lambda trial: {"learning_rate": -1.0}, trials=2))
    with pytest.raises(TidemillError, match=r"the space of its search fails: KeyError"):
        searched(tmp_path / "d", [], Search(lambda trial: dict[str, Any]()["x"], trials=2))


def test_parameters_of_several_classes(tmp_path: Path) -> None:
    """A fold is measured by the log loss of the classes; one before which a class has no row fails with its reason."""
    data = dataclasses.replace(examples(400), labels=(np.arange(400) * 7 % 13 % 3).astype(np.float64), texts=("b", "a", "c"))
    assert fold_loss(model(poor, search=Search(space)), data, {}, 0) == pytest.approx(np.log(3), rel=0.1)
    sorted_labels = dataclasses.replace(data, labels=(np.arange(400) // 134).astype(np.float64))
    with pytest.raises(ValueError, match="a class has no row before fold 1: 1 of 3 are missing"):
        fold_loss(model(poor, search=Search(space)), sorted_labels, {}, 0)


@pytest.mark.slow
def test_processes_search_side_by_side(tmp_path: Path) -> None:
    """Each loads the project by itself; all trials are done, no two of them the same, and the result is one of them."""
    text = (FOLDER / "project.py").read_text()
    declared = text.replace(", classifier)", ", classifier, training=Training(search=Search(scales, trials=5, processes=2)))")
    assert declared != text
    (tmp_path / "project.py").write_text(
        declared.replace("Training, age", "Search, Training, age").replace("_inputs: ", f"{SCALES}_inputs: ", 1)
    )
    notes = list[str]()
    best = search(load_project(tmp_path).models["big_tip"], str(tmp_path), examples(400), RunFiles(tmp_path), "k", notes.append, unseen)
    assert (best.trials, len(notes)) == (5, 5)
    assert len({note.split(": ")[1] for note in notes}) == 5
    assert best.loss <= best.declared


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_processes_of_a_cluster_search(tmp_path: Path) -> None:
    """On Ray the project is sent along; trials are done and measured as here, and the same declaration has the same loss to the bit."""
    text = (FOLDER / "project.py").read_text()
    declared = text.replace(", classifier)", ", classifier, training=Training(search=Search(scales, trials=3, processes=2)))")
    (tmp_path / "project.py").write_text(
        declared.replace("Training, age", "Search, Training, age").replace("_inputs: ", f"{SCALES}_inputs: ", 1)
    )
    model, notes = load_project(tmp_path).models["big_tip"], list[str]()
    best = search(model, str(tmp_path), examples(400), RunFiles(tmp_path), "k", notes.append, unseen, "local")
    assert (best.trials, best.failed, len(notes)) == (3, 0, 3)
    assert best.declared == np.mean([fold_loss(model, examples(400), {}, fold) for fold in range(Search(scales).folds)])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_a_cluster_that_is_away(tmp_path: Path) -> None:
    """One line, with the mend."""
    wanted = Search(scales, trials=1)
    with pytest.raises(RayUnavailable, match=r"on Ray at '127.0.0.1:1'.*; see that the cluster"):
        search(model(poor, search=wanted), str(tmp_path), examples(400), RunFiles(tmp_path), "k", print, unseen, "127.0.0.1:1")


SCALES = """
def scales(trial):
    return {"logisticregression__C": trial.suggest_float("C", 1e-4, 10, log=True)}


"""


def scales(trial: Any) -> dict[str, Any]:
    """Of a linear model."""
    return {"logisticregression__C": trial.suggest_float("C", 1e-4, 10, log=True)}


def everything() -> Training:
    """Every choice at once."""
    return Training(
        search=Search(scales, trials=4, folds=2), select=Select(rounds=2, stable=0.5), split=RollingOrigin(2), metrics={"worst": _worst},
    )  # fmt: skip


@pytest.mark.slow
def test_killed_in_a_search(tmp_path: Path) -> None:
    """A whole training with every choice, killed again and again, ends as one that was not killed."""
    first, second = tmp_path / "a", tmp_path / "b"
    town(first, 150)
    shutil.copytree(first, second)
    processes = context()
    assert in_process(processes, first, Ending(), None, everything).code == 0
    codes = list[int]()
    while not codes or codes[-1] < 0:
        codes.append(in_process(processes, second, Ending(rename=9), None, everything).code)
    assert (codes[-1], len(codes) > 4) == (0, True)
    one, two = (root / "models" / "big_tip" / run_name(CREATED_MS) for root in (first, second))
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {path.name: path.read_bytes() for path in two.iterdir()}
    assert '"worst"' in (one / "manifest.json").read_text()


def _worst(labels: Any, said: Any) -> float:
    return float(np.max(np.abs(labels - said)))
