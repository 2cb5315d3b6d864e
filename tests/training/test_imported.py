"""A file from elsewhere is served as it answers by itself: for known, unknown and missing inputs, whatever it takes and gives.

The oracles are numpy, and scikit-learn on raw rows; they share no code with the graph that is made around a file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.training.elsewhere import CODES, NAMES, contract, numbers, written
from tests.training.files import DOUBLE, FLOAT, INT64, TEXT, Perceptron, made
from tests.training.test_zoo import ROWS, TRUTH, Row, asked_rows, training_set
from tests.training.zoo import MODEL, NUMBERS

from tidemill import Event, Model, Outcome
from tidemill.kernel.served import Served
from tidemill.models.artifact import load_artifact, save_artifact
from tidemill.models.engine import Engine, load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.training.imported.version import Imported, make_imported, prepare

ABOVE = (np.median(TRUTH) < TRUTH).astype(np.float64)
ASKED = asked_rows(ROWS)
CLASSES = ["late", "early", "never"]


def imported(folder: Path, model: Any, agreed: dict[str, Any], labels: np.ndarray = ABOVE, declared: Model = MODEL) -> Imported:
    """The version of a file."""
    return make_imported(prepare(declared, *written(folder, model, agreed)), training_set(ROWS, labels), 0, lambda _: None)


def engine_of(folder: Path, version: Imported) -> Engine:
    """As inference has it, from the stored file."""
    return load_engine(load_artifact(str(folder), *save_artifact(str(folder), *version.artifact)))


def vectors(version: Imported, rows: Sequence[Row], declared: Model = MODEL) -> np.ndarray:
    """The inputs as serving makes them, from features and from what comes with the request."""
    inputs, made_rows = ModelInputs(declared, version.artifact.manifest.categories), []
    for row in rows:
        features = [math.nan if row[name] is None else row[name] for name in NAMES[:9]]
        member = None if row["member"] is None else row["member"] > 0
        given = {"zone": "a", "driver_id": 1, "distance": row["distance"], "payment": row["payment"], "member": member}
        made_rows.append(vector_of(inputs.row([Served(features[:8], [], 0), Served([0.0, features[8]], [], 0)], given)))
    return np.array(made_rows)


def served(folder: Path, version: Imported, rows: Sequence[Row] = ASKED) -> np.ndarray:
    """What is served for raw rows."""
    engine = engine_of(folder, version)
    run = engine.probabilities if engine.classes else engine.predict
    return np.array([run(row) for row in vectors(version, rows)])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The probability of a logit."""
    return np.asarray(1 / (1 + np.exp(-logits)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """The probabilities of logits."""
    return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def test_a_network_as_pytorch_writes_it(tmp_path: Path) -> None:
    """Columns in another order, texts by codes, an unknown text apart from a missing one, and a logit: served as numpy computes it."""
    order, network = NAMES[::-1], Perceptron(len(NAMES))
    agreed = contract(inputs=order, unknown={"payment": 9})
    version = imported(tmp_path, network.onnx(), agreed)
    expected = sigmoid(network.answers(numbers(ASKED, order, unknown=9.0)))[:, 0]
    assert np.abs(served(tmp_path, version) - expected).max() <= 1e-5
    assert np.ptp(expected) > 0.01
    manifest = version.artifact.manifest
    assert (manifest.output, manifest.class_names, manifest.rows, len(version.fitted.holdout)) == ("probability", [], 300, 60)
    assert manifest.metrics["auc"] == pytest.approx(
        roc_auc_score(ABOVE[240:], network.answers(numbers(ROWS[240:], order, unknown=9.0))[:, 0]), abs=1e-6
    )
    assert manifest.reference.keys() == {*NAMES, "prediction"}
    assert manifest.reference["prediction"].rows == 60
    assert [item.name for item in manifest.inputs] == NAMES
    assert manifest.categories["payment"][:3] == list(CODES)
    assert len(manifest.golden) == 20
    assert manifest.parity.max_abs_diff < 1e-6


def test_a_missing_number_is_nan_where_the_contract_says_nothing(tmp_path: Path) -> None:
    """A file that takes NaN gets NaN, and a missing text too."""
    nodes = [
        helper.make_node("IsNaN", ["input"], ["empty"]),
        helper.make_node("Cast", ["empty"], ["counted"], to=FLOAT),
        helper.make_node("ReduceMean", ["counted"], ["output"], axes=[1], keepdims=1),
    ]
    model = made(nodes, [("input", FLOAT, [None, 12])], [("output", FLOAT, [None, 1])])
    agreed = contract("value", missing={"distance": 3.5}, categories={"payment": ["card", "cash"]})
    version = imported(tmp_path, model, agreed, labels=TRUTH)
    gone = [sum(row[name] is None for name in NAMES if name != "distance") + (row["payment"] in ("coin", "shells")) for row in ASKED]
    assert served(tmp_path, version) == pytest.approx(np.array(gone) / 12)


def summed(*parts: str) -> list[Any]:
    """Nodes that add up all numbers of some matrices, each row by itself."""
    joined = (
        [helper.make_node("Concat", list(parts), ["all"], axis=1)]
        if len(parts) > 1
        else [helper.make_node("Identity", [parts[0]], ["all"])]
    )
    return [*joined, helper.make_node("ReduceMean", ["all"], ["output"], axes=[1], keepdims=1)]


def flat(name: str, to: str) -> Any:
    """A node that makes a column of an input of any shape."""
    return helper.make_node("Flatten", [name], [to], axis=1)


def by_name(shape: list[Any], kind: int) -> Any:
    """A file with an input for each column."""
    nodes = [
        one
        for name in NAMES
        for one in (
            helper.make_node("Reshape", [name, "column"], [f"{name}_"]),
            helper.make_node("Cast", [f"{name}_"], [f"{name}__"], to=FLOAT),
        )
    ]
    return made(
        [*nodes, *summed(*(f"{name}__" for name in NAMES))],
        [(name, kind, shape) for name in NAMES],
        [("output", FLOAT, [None, 1])],
        {"column": np.array([-1, 1])},
    )


def image(kind: int) -> Any:
    """A file that takes a picture of three by four points, in one colour."""
    nodes = [flat("input", "flat"), helper.make_node("Cast", ["flat"], ["points"], to=FLOAT)]
    return made([*nodes, *summed("points")], [("input", kind, ["n", 1, 3, 4])], [("output", FLOAT, ["n", 1])])


def with_function() -> Any:
    """A file whose nodes lie in a function of its own, as newer exporters write them."""
    model = made(
        [helper.make_node("Mean", ["input"], ["output"], domain="net")], [("input", FLOAT, ["n", 12])], [("output", FLOAT, ["n", 1])]
    )
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("net", "Mean", ["input"], ["output"], summed("input"), opsets))
    model.opset_import.append(helper.make_opsetid("net", 1))
    return model


def with_branch() -> Any:
    """A file with a branch whose graphs use what was computed before it."""
    shape = helper.make_tensor_value_info("chosen", FLOAT, None)
    yes, no = (helper.make_graph([helper.make_node(kind, ["before"], ["chosen"])], kind, [], [shape]) for kind in ("Identity", "Neg"))
    nodes = [
        helper.make_node("Identity", ["input"], ["before"]),
        helper.make_node("Constant", [], ["always"], value=helper.make_tensor("always", TensorProto.BOOL, [], [True])),
        helper.make_node("If", ["always"], ["picked"], then_branch=yes, else_branch=no),
        *summed("picked"),
    ]
    return made(nodes, [("input", FLOAT, ["n", 12])], [("output", FLOAT, ["n", 1])])


def with_constants_as_inputs() -> Any:
    """A file as old exporters write it, which names its constants among the inputs."""
    nodes = [helper.make_node("MatMul", ["input", "weights"], ["output"])]
    shapes = [("input", FLOAT, ["n", 12]), ("weights", FLOAT, [12, 1])]
    model = made(nodes, shapes, [("output", FLOAT, ["n", 1])], {"weights": np.full((12, 1), 1 / 12, np.float32)}, opset=9)
    model.ir_version = 3
    return model


TAKEN: dict[str, Callable[[], Any]] = {
    "a matrix": lambda: made(summed("input"), [("input", FLOAT, ["n", 12])], [("output", FLOAT, ["n", 1])]),
    "a matrix of unknown width": lambda: made(summed("input"), [("input", FLOAT, [None, None])], [("output", FLOAT, [None, 1])]),
    "one row at a time": lambda: made(summed("input"), [("input", FLOAT, [1, 12])], [("output", FLOAT, [1, 1])]),
    "float64": lambda: made(summed("input"), [("input", DOUBLE, ["n", 12])], [("output", DOUBLE, ["n", 1])]),
    "a picture": lambda: image(FLOAT),
    "a picture of float64": lambda: image(DOUBLE),
    "columns by name": lambda: by_name([None, 1], FLOAT),
    "columns by name without a second axis": lambda: by_name([None], FLOAT),
    "columns of float64 by name": lambda: by_name([None, 1], DOUBLE),
    "an old opset": lambda: made(summed("input"), [("input", FLOAT, ["n", 12])], [("output", FLOAT, ["n", 1])], opset=9),
    "a function": with_function,
    "a branch": with_branch,
    "constants as inputs": with_constants_as_inputs,
    "names as ours": lambda: made(
        [helper.make_node("Identity", ["features"], ["served"]), helper.make_node("Identity", ["served"], ["input"]), *summed("input")],
        [("features", FLOAT, ["n", 12])],
        [("output", FLOAT, ["n", 1])],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKEN)
def test_what_a_file_may_take(name: str, tmp_path: Path) -> None:
    """The mean of all columns is served as numpy computes it."""
    version = imported(tmp_path, TAKEN[name](), contract("value"), labels=TRUTH)
    assert served(tmp_path, version) == pytest.approx(numbers(ASKED).mean(axis=1), rel=1e-5)
    assert version.artifact.manifest.output == "value"


def test_half_of_the_digits(tmp_path: Path) -> None:
    """A file of float16 gets numbers of three digits, and gives such a one."""
    kind = TensorProto.FLOAT16
    model = made(summed("input"), [("input", kind, ["n", 1])], [("output", kind, ["n", 1])])
    agreed = {"inputs": ["distance"], "missing": {"distance": 2}, "output": {"name": "output", "gives": "value"}}
    found = served(tmp_path, imported(tmp_path, model, agreed, labels=TRUTH))
    assert found == pytest.approx(numbers(ASKED, ["distance"], missing=2.0)[:, 0].astype(np.float16).astype(float))


@pytest.mark.parametrize("model", [by_name([None], INT64), image(TensorProto.INT32)])
def test_whole_numbers(model: Any, tmp_path: Path) -> None:
    """A file of whole numbers gets them without what follows the point."""
    version = imported(tmp_path, model, contract("value", missing=dict.fromkeys(NAMES, 7)), labels=TRUTH)
    assert served(tmp_path, version) == pytest.approx(np.trunc(numbers(ASKED, missing=7.0)).mean(axis=1), rel=1e-5)


def test_several_inputs_of_several_columns(tmp_path: Path) -> None:
    """Two matrices, one of which is texts; the file leaves one declared input out."""
    nodes = [
        helper.make_node("LabelEncoder", ["words"], ["place"], domain="ai.onnx.ml", keys_strings=["card", "?", "none"], values_floats=[10.0, 20.0, 30.0], default_float=40.0),
        *summed("numbers", "place"),
    ]  # fmt: skip
    model = made(nodes, [("numbers", FLOAT, [None, 2]), ("words", TEXT, [None, 1])], [("output", FLOAT, [None, 1])])
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    agreed = {
        "inputs": {"words": ["payment"], "numbers": ["distance", "zones__age"]},
        "missing": {"payment": "none", "distance": 1, "zones__age": 2}, "unknown": {"payment": "?"},
        "categories": {"payment": ["coin", "card"]}, "output": {"name": "output", "gives": "value"},
    }  # fmt: skip
    notes: list[str] = []
    version = make_imported(prepare(MODEL, *written(tmp_path, model, agreed)), training_set(ROWS, TRUTH), 0, notes.append)
    words = {None: 30.0, "card": 10.0, "coin": 40.0, "cash": 20.0, "shells": 20.0}
    expected = [
        np.mean(
            [
                words[row["payment"]],
                1 if row["distance"] is None else row["distance"],
                2 if row["zones__age"] is None else row["zones__age"],
            ]
        )
        for row in ASKED
    ]
    assert served(tmp_path, version) == pytest.approx(expected, rel=1e-5)
    assert [note for note in notes if note.startswith("the file does not take these inputs of the model: zones__count_1h")]


def last(*nodes: Any, shape: Sequence[Any], kind: int = FLOAT, outputs: int = 1) -> Any:
    """The network with these nodes after it, and their `last` as its output."""
    model = Perceptron(12, outputs).onnx()
    model.graph.node.extend(nodes)
    model.graph.output.append(helper.make_tensor_value_info("last", kind, shape))
    return model


def both(source: str) -> list[Any]:
    """Nodes that put the probabilities of false and true beside each other."""
    return [
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Sub", ["one", source], ["no"]),
        helper.make_node("Concat", ["no", source], ["last"], axis=1),
    ]


GIVEN: dict[str, tuple[Any, str]] = {
    "logit": (lambda: last(helper.make_node("Identity", ["output"], ["last"]), shape=[None, 1]), "logit"),
    "logit without a second axis": (
        lambda: last(helper.make_node("Squeeze", ["output", "axis"], ["last"]), shape=[None]), "logit"),
    "probability": (lambda: last(helper.make_node("Sigmoid", ["output"], ["last"]), shape=[None, 1]), "probability"),
    "probability of float64": (
        lambda: last(
            helper.make_node("Sigmoid", ["output"], ["p"]), helper.make_node("Cast", ["p"], ["last"], to=DOUBLE), shape=[None, 1], kind=DOUBLE
        ), "probability"),
    "probabilities of both": (lambda: last(helper.make_node("Sigmoid", ["output"], ["p"]), *both("p"), shape=[None, 2]), "probability"),
    "probabilities of two": (lambda: last(helper.make_node("Sigmoid", ["output"], ["p"]), *both("p"), shape=[None, 2]), "probabilities"),
    "logits of two": (
        lambda: last(helper.make_node("Sub", ["output", "output"], ["no"]), helper.make_node("Concat", ["no", "output"], ["last"], axis=1),
                     shape=[None, 2]), "logits"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN)
def test_what_a_file_may_give_of_true_and_false(name: str, tmp_path: Path) -> None:
    """Each is the same probability, as numpy computes it."""
    model, gives = GIVEN[name][0](), GIVEN[name][1]
    if "axis" in name:
        model.graph.initializer.append(helper.make_tensor("axis", INT64, [1], [1]))
    version = imported(tmp_path, model, contract(output={"name": "last", "gives": gives}))
    expected = sigmoid(Perceptron(12).answers(numbers(ASKED)))[:, 0]
    assert np.abs(served(tmp_path, version) - expected).max() <= 1e-5
    assert version.artifact.manifest.output == "probability"


def with_classes(classes: Sequence[str] = ()) -> Model:
    """The model with a text as its outcome."""
    ended = Event("ended", {"at": int, "id": str, "how": str}, "at")
    return dataclasses.replace(MODEL, outcome=Outcome(ended, "how", "id", classes=classes))


@pytest.mark.parametrize("gives", ["logits", "probabilities"])
@pytest.mark.parametrize("declared", [(), ("never", "late", "early")])
def test_several_classes(gives: str, declared: tuple[str, ...], tmp_path: Path) -> None:
    """Of each class the probability, in the order of the outcome or else of the file; examples of another class are left out."""
    network = Perceptron(12, 3)
    node = helper.make_node("Softmax" if gives == "probabilities" else "Identity", ["output"], ["last"])
    model = last(node, shape=[None, 3], outputs=3)
    labels = np.resize([0.0, 1.0, 2.0, 3.0, 1.0], 300)
    examples = dataclasses.replace(training_set(ROWS, labels), texts=("early", "other", "late", "never"))
    agreed, notes = contract(output={"name": "last", "gives": gives}, classes=CLASSES), list[str]()
    version = make_imported(prepare(with_classes(declared), *written(tmp_path, model, agreed)), examples, 0, notes.append)
    order = list(declared) or CLASSES
    expected = softmax(network.answers(numbers(ASKED)))[:, [CLASSES.index(name) for name in order]]
    assert np.abs(served(tmp_path, version) - expected).max() <= 1e-5
    manifest = version.artifact.manifest
    assert (manifest.output, manifest.class_names, manifest.rows) == ("probabilities", order, 180)
    assert [note for note in notes if note.startswith("120 examples are left out") and note.endswith("such as: other")]
    held = softmax(network.answers(numbers([row for row, label in zip(ROWS, labels, strict=True) if label != 1.0][144:])))
    truth = [{0.0: "early", 2.0: "late", 3.0: "never"}[label] for label in labels if label != 1.0][144:]
    right = [CLASSES[place] == name for place, name in zip(held.argmax(axis=1), truth, strict=True)]
    assert manifest.metrics["accuracy"] == pytest.approx(np.mean(right))


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Raw rows as a pipeline of the user gets them."""
    table = pd.DataFrame({name: pd.Series([np.nan if row[name] is None else row[name] for row in rows], dtype=object) for name in NAMES})
    table["payment"] = [row["payment"] or "?" for row in rows]
    return table.astype(dict.fromkeys(NUMBERS, "float32"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zipmap", "several", "encoded"),
    [(True, True, False), (True, False, False), (False, True, False), (False, False, False), (True, True, True)],
)
def test_a_classifier_that_skl2onnx_converted(zipmap: bool, several: bool, encoded: bool, tmp_path: Path) -> None:
    """Columns by name, one of them texts; labels beside probabilities, as a tensor or as maps, by class or by its place (`encoded`): served as
    scikit-learn predicts."""
    places = np.digitize(TRUTH, np.quantile(TRUTH, [0.3, 0.6])) if several else ABOVE.astype(np.int64)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    pipeline = make_pipeline(
        make_column_transformer((encoder, ["payment"]), (SimpleImputer(), NUMBERS)), StandardScaler(), LogisticRegression(max_iter=1000)
    ).fit(frame(ROWS), np.array(CLASSES)[places] if several and not encoded else places)
    types = [(name, StringTensorType([None, 1]) if name == "payment" else FloatTensorType([None, 1])) for name in NAMES]
    model = to_onnx(pipeline, initial_types=types, options={"zipmap": zipmap})
    agreed: dict[str, Any] = {
        "inputs": NAMES, "missing": {"payment": "?"}, "unknown": {"payment": "!"}, "categories": {"payment": ["card", "cash", "coin"]},
        "output": {"name": "output_probability" if zipmap else "probabilities", "gives": "probabilities"},
    }  # fmt: skip
    declared, examples = MODEL, training_set(ROWS, places.astype(np.float64))
    if several:
        agreed["classes"], declared = CLASSES if zipmap else sorted(CLASSES), with_classes()
        examples = dataclasses.replace(examples, texts=tuple(CLASSES))
    version = make_imported(prepare(declared, *written(tmp_path, model, agreed)), examples, 0, lambda _: None)
    rows = [row for row in ASKED if any(value is not None for value in row.values())]
    expected = pipeline.predict_proba(frame(rows))
    expected = (
        expected[:, [(CLASSES if encoded else sorted(CLASSES)).index(name) for name in version.artifact.manifest.class_names]]
        if several
        else expected[:, 1]
    )
    assert np.abs(served(tmp_path, version, rows) - expected).max() <= 1e-4
