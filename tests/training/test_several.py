"""Pipelines of three classes are trained, stored and served as they predict: every probability, and the class."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from tests.training.test_zoo import ROWS, TEXTS, TRUTH, Row, asked_rows, training_set, vectors
from tests.training.zoo import MODEL, NUMBERS, SEVERAL
from threadpoolctl import threadpool_limits

from tidemill import Event, Model, Outcome
from tidemill.errors import ArtifactError, BadRequest, TidemillError
from tidemill.models.answers import answer_of, chosen
from tidemill.models.artifact import load_artifact, save_artifact
from tidemill.models.engine import Engine, load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.training.dataset import TrainingSet
from tidemill.training.fitting import fit
from tidemill.training.version import Version, make_version
from tidemill_inference.computing import answered_by
from tidemill_inference.loaded import LoadedVersion
from tidemill_training.mlmodel import files_of

pytestmark = pytest.mark.filterwarnings("ignore")  # of scikit-learn: few rows, few iterations, categories never seen
CLASSES = ["cancelled", "late", "on time"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait by spinning make small models slow on a busy machine."""
    with threadpool_limits(1):
        yield


def three() -> Any:
    """The rows of the zoo with one of three texts as the outcome, numbered in the order in which they were met."""
    places = np.digitize(TRUTH, np.quantile(TRUTH, [0.3, 0.6]))
    return dataclasses.replace(training_set(ROWS, (places + 1) % 3.0), texts=("on time", "cancelled", "late"))


def oracle(version: Version, rows: list[Row], *, by_name: bool) -> np.ndarray:
    """The fitted pipeline on the raw rows."""
    table = pd.DataFrame({name: pd.Series([np.nan if row[name] is None else row[name] for row in rows], dtype=object) for name in rows[0]})
    table[NUMBERS] = table[NUMBERS].astype("float32")
    if not by_name:
        table["payment"] = table["payment"].map({text: float(i) for i, text in enumerate(TEXTS)})
    rows_given = table if by_name else table.to_numpy(dtype=np.float32)
    return np.asarray(version.fitted.pipeline.predict_proba(rows_given), dtype=np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL)
def test_a_classifier_of_three_classes(name: str, tmp_path: Path) -> None:
    """Each probability that is served, from the stored file, is that of the fitted pipeline, within 1e-4; so is the class, but for ties."""
    version = make_version(dataclasses.replace(MODEL, pipeline=SEVERAL[name]), three(), 0, lambda _: None)
    stored = load_artifact(str(tmp_path), *save_artifact(str(tmp_path), *version.artifact))
    rows, engine = asked_rows(ROWS), load_engine(stored)
    expected = oracle(version, rows, by_name="by name" in name)
    answers = [engine.answer(row) for row in vectors(version, rows)]
    found = np.array([list(answer.probabilities.values()) for answer in answers])
    assert stored.manifest.output == "probabilities"
    assert {tuple(answer.probabilities) for answer in answers} == {tuple(CLASSES)}
    assert np.abs(found - expected).max() <= 1e-4
    assert np.ptp(expected, axis=0).min() > 0
    clear = np.diff(np.sort(expected, axis=1)[:, -2:])[:, 0] > 2e-4
    named = np.array([chosen(answer.probabilities) for answer in answers])
    assert (named == np.array(CLASSES)[expected.argmax(axis=1)])[clear].all()
    assert version.fitted.metrics["auc_ovr"] > 0.5


def regressor() -> Any:
    """No classifier."""
    return make_pipeline(SimpleImputer(), Ridge())


def weighted() -> Any:
    """A classifier that knows the classes by their names, which the pipeline does not get."""
    return make_pipeline(SimpleImputer(), LogisticRegression(class_weight={"late": 2.0}))


def voted() -> Any:
    """A classifier whose `predict` goes by other numbers than its probabilities."""
    return make_pipeline(SimpleImputer(), SVC(probability=True, random_state=0))


def with_outcome(pipeline: Any = SEVERAL["logistic regression"], **options: Any) -> Model:
    """The model with a text as its outcome."""
    ended = Event("ended", {"at": int, "id": str, "how": str, "grade": int}, "at")
    return dataclasses.replace(MODEL, pipeline=pipeline, outcome=Outcome(ended, options.pop("value", "how"), "id", **options))


def labelled(labels: Sequence[float], texts: Sequence[str] = ()) -> TrainingSet:
    """The rows of the zoo with these labels, again and again."""
    return dataclasses.replace(training_set(ROWS, np.resize(np.array(labels, np.float64), len(ROWS))), texts=tuple(texts))


def test_the_order_of_classes() -> None:
    """As declared; else texts by their letters, and numbers by their size. The pipeline gets their places."""
    declared = fit(with_outcome(classes=["late", "cancelled", "on time"]), three())
    assert declared.classes == ["late", "cancelled", "on time"]
    assert [declared.classes[int(label)] for label in declared.holdout.labels] == [
        three().texts[int(label)] for label in three().labels[240:]
    ]
    assert fit(with_outcome(), three()).classes == CLASSES
    numbers = fit(with_outcome(value="grade"), labelled([10, -2, 7]))
    assert numbers.classes == ["-2", "7", "10"]
    assert set(numbers.holdout.labels) == {0.0, 1.0, 2.0}
    assert fit(with_outcome(value="grade"), labelled([0, 1, 1])).output == "probability"
    assert fit(with_outcome(value="grade", classes=[1, 0]), labelled([0, 1, 1])).classes == ["1", "0"]
    assert fit(with_outcome(), labelled([0, 1, 1], ["won", "lost"])).classes == ["lost", "won"]


@pytest.mark.parametrize(
    ("options", "examples", "told"),
    [
        ({}, labelled([0], ["late"]), "all 300 examples are of one class, 'late'; collect more"),
        (
            {},
            labelled([0, 1] * 149 + [2, 0], ["a", "b", "c"]),
            r"240 examples before the holdout \(the newest fifth\) are of class 'c' \(0\); 2 are the least; collect .* classes=",
        ),
        ({}, labelled([2] + [0, 1] * 149 + [0], ["a", "b", "c"]), r"are of class 'c' \(1\); 2 are"),
        ({}, labelled([0, 1] * 120 + [1] * 60, ["a", "b"]), "all 60 held-out examples are of one class, 'b'"),
        ({"classes": ["a", "x"]}, labelled([0, 1], ["a", "b"]), "no example is of class 'x'; there are 'a', 'b'; correct classes="),
        ({}, labelled(range(200), [str(i) for i in range(200)]), "'how' gives 200 classes; 100 are the most; name those that matter"),
        ({"value": "grade"}, labelled(range(200)), "one of 100 whole numbers at most, but 'grade' gives 200 different numbers"),
        ({"pipeline": regressor}, three(), "'how' is a text, of which a regressor learns nothing; return a classifier"),
        ({"pipeline": weighted}, three(), "are not in class_weight; name the classes by their places"),
    ],
)
def test_what_cannot_be_learnt_is_told_in_one_line(options: dict[str, Any], examples: TrainingSet, told: str) -> None:
    """With the class at fault, and what to do."""
    with pytest.raises(TidemillError, match=told) as error:
        make_version(with_outcome(**options), examples, 0, lambda _: None)
    assert "\n" not in str(error.value)


def test_predict_that_chooses_otherwise_is_told() -> None:
    """The most probable class is answered, whatever `predict` of the pipeline says."""
    notes: list[str] = []
    version = make_version(with_outcome(voted), labelled([0, 1, 2], CLASSES), 0, notes.append)
    assert [
        note for note in notes if "predict of the pipeline chooses another class than the most probable one on 60 held-out rows" in note
    ]
    assert version.artifact.manifest.class_names == CLASSES


def test_a_probability_that_is_no_number_is_no_answer(tmp_path: Path) -> None:
    """The engine gives NaN as it is, and no class is the largest."""
    answer = answer_of(CLASSES, [math.nan, 0.5, 0.5])
    assert not answer.is_finite
    assert math.isnan(answer.output)
    assert answer_of(CLASSES, [0.0, 0.5, 0.5]).is_finite
    assert chosen(answer_of(CLASSES, [0.0, 0.5, 0.5]).probabilities) == "late"  # the first of two


def test_a_model_without_a_number_for_one_class_is_refused() -> None:
    """One that gives NaN for a class when all inputs are missing cannot serve."""
    nodes = [
        helper.make_node("Gather", ["features", "first"], ["one"], axis=1),
        helper.make_node("Sub", ["one", "one"], ["zero_or_nan"]),
        helper.make_node("Concat", ["one", "zero_or_nan"], ["probabilities"], axis=1),
    ]
    constant = helper.make_tensor("first", TensorProto.INT64, [1], [0])
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("features", "probabilities")]
    graph = helper.make_graph(nodes, "half", shapes[:1], shapes[1:], [constant])
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    with pytest.raises(ArtifactError, match="half gives no number when all inputs are missing; put an imputer first"):
        Engine.of_onnx("half", onnx, 2, "probabilities", ["a", "b"])


def test_a_request_for_which_one_class_has_no_number_is_refused() -> None:
    """The roots of a negative number: there is no answer, and nothing to log."""
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "half", "features"], ["given"]),
        helper.make_node("Sqrt", ["given"], ["root"]),
        helper.make_node("Concat", ["given", "root"], ["probabilities"], axis=1),
    ]
    constant = helper.make_tensor("half", TensorProto.FLOAT, [1, 1], [0.5])
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, n]) for name, n in (("features", 1), ("probabilities", 2))]
    graph = helper.make_graph(nodes, "roots", shapes[:1], shapes[1:], [constant])
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    manifest = make_version(with_outcome(), three(), 0, lambda _: None).artifact.manifest
    engine = Engine.of_onnx("roots", onnx, 1, "probabilities", ["a", "b"])
    loaded = LoadedVersion(MODEL, manifest, engine, ModelInputs(MODEL, manifest.categories), ())
    assert asyncio.run(answered_by(loaded, np.array([0.25], np.float32))).probabilities == {"a": 0.25, "b": 0.5}
    with pytest.raises(BadRequest, match="model roots gives no number for these inputs"):
        asyncio.run(answered_by(loaded, np.array([-0.25], np.float32)))


def test_a_mend_of_class_weights() -> None:
    """Weights by the places of the classes are taken."""
    by_place = lambda: make_pipeline(SimpleImputer(), LogisticRegression(class_weight={0: 1.0, 1: 2.0, 2: 1.0}, max_iter=1000))  # noqa: E731
    assert fit(with_outcome(by_place), three()).metrics["accuracy"] > 0.3


def test_golden_rows_have_all_probabilities(tmp_path: Path) -> None:
    """A version that gives another probability of any class is refused, and so is one without them; the classes are in the manifest."""
    version = make_version(with_outcome(), three(), 0, lambda _: None)
    manifest = version.artifact.manifest
    row = manifest.golden[0]
    assert isinstance(row.probabilities, list)
    assert row.output == max(row.probabilities)
    with pytest.raises(ArtifactError, match="answers with the probabilities of 3 classes, and this takes one number; use a model of a"):
        load_engine(version.artifact).predict(vector_of(row.inputs))
    swapped = msgspec.structs.replace(row, probabilities=row.probabilities[::-1])
    for wrong in (swapped, msgspec.structs.replace(row, probabilities=msgspec.UNSET)):
        with pytest.raises(ArtifactError, match=r"where it gave .* when it was made; make the version again on this kind of machine"):
            load_engine(version.artifact._replace(manifest=msgspec.structs.replace(manifest, golden=[wrong])))
    with pytest.raises(ArtifactError, match="no float32 output of 4 columns for its probabilities"):
        load_engine(version.artifact._replace(manifest=msgspec.structs.replace(manifest, classes=[*CLASSES, "more"])))


def test_other_manifests_have_nothing_of_classes() -> None:
    """Not a byte of a version of two classes speaks of them."""
    version = make_version(with_outcome(value="grade"), labelled([0, 1, 1, 0, 1]), 0, lambda _: None)
    written = msgspec.json.encode(version.artifact.manifest)
    assert b"classes" not in written
    assert b"probabilities" not in written


def test_mlflow_has_an_output_for_each_class() -> None:
    """The ONNX file that MLflow gets gives the served probabilities, a column for each class, also one that is called as an input is."""
    model, data = with_outcome(), dataclasses.replace(three(), texts=("features", "cancelled", "label"))
    version = make_version(model, data, 0, lambda _: None)
    files, engine = files_of(version.artifact.manifest, version.artifact.onnx, "run"), load_engine(version.artifact)
    session = onnxruntime.InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    names = [f"probability of {name}" for name in ("cancelled", "features", "label")]
    assert [output.name for output in session.get_outputs()] == names
    for row in vectors(version, asked_rows(ROWS)[:10]):
        assert [column.item() for column in session.run(names, {"features": row[None]})] == engine.probabilities(row)
    described = yaml.safe_load(files["MLmodel"])
    assert [output["name"] for output in json.loads(described["signature"]["outputs"])] == names


MLFLOW = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, pandas as pd
onnx, loaded = mlflow.onnx.load_model(sys.argv[1]), mlflow.pyfunc.load_model(sys.argv[1])
rows = pd.DataFrame(json.loads(sys.argv[2]), columns=loaded.metadata.get_input_schema().input_names(), dtype="float32")
found = loaded.predict(rows[rows.columns[::-1]])
print(json.dumps([[output.name for output in onnx.graph.output], list(found), [column.tolist() for _, column in found.items()]]))
"""


@pytest.mark.slow
def test_mlflows_own_client_gives_a_column_for_each_class(tmp_path: Path) -> None:
    """As ONNX and as a function of a data frame: the probabilities that are served, under the names of the classes."""
    version = make_version(with_outcome(), three(), 0, lambda _: None).artifact
    for name, content in files_of(version.manifest, version.onnx, "run").items():
        (tmp_path / name).write_bytes(content)
    golden = version.manifest.golden
    arguments = [sys.executable, "-c", MLFLOW, str(tmp_path), json.dumps([row.inputs for row in golden])]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    outputs, columns, found = json.loads(done.stdout)
    assert outputs == columns == [f"probability of {name}" for name in version.manifest.class_names]
    for answer, row in zip(zip(*found, strict=True), golden, strict=True):
        assert answer == pytest.approx(row.probabilities, abs=1e-6)  # of many rows at once: another last bit


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(st.text(max_size=5), min_size=2, max_size=7, unique=True), st.booleans(), st.integers(0, 1000))
def test_answers_are_those_of_plain_scikit_learn_on_the_texts(classes: list[str], trees: bool, seed: int) -> None:
    """A pipeline that was fitted to the texts themselves, without tidemill, gives each class the same probability."""
    classes = sorted(classes)
    draw = np.random.default_rng(seed)
    places = np.concatenate([np.arange(len(classes))] * 3 + [draw.integers(0, len(classes), len(ROWS) - 3 * len(classes))])
    made = SEVERAL["tree" if trees else "logistic regression"]
    data = dataclasses.replace(training_set(ROWS, places.astype(np.float64)), texts=tuple(classes))
    version = make_version(with_outcome(made), data, 0, lambda _: None)
    plain = made().fit(data.matrix, np.array(classes, object)[places])
    engine, rows = load_engine(version.artifact), data.matrix[:40]
    for row, expected in zip(rows, plain.predict_proba(rows), strict=True):
        answer = engine.answer(row)
        assert list(answer.probabilities) == plain.classes_.tolist() == classes
        assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)
        if np.diff(np.sort(expected)[-2:])[0] > 2e-4:
            assert chosen(answer.probabilities) == plain.classes_[expected.argmax()]
