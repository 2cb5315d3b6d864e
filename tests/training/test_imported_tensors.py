"""A network of pictures from elsewhere: its input of any shape is one declared tensor, and it is served as it answers by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.testing.desk import project
from tests.training.elsewhere import written
from tests.training.test_contents_zoo import digits

import tidemill as tm
from tidemill.errors import TidemillError
from tidemill.models.contents import tensor_content
from tidemill.models.engine import load_engine
from tidemill.training.dataset import TrainingSet
from tidemill.training.imported.version import Imported, make_imported, prepare
from tidemill.training.imported.version import Prepared as PreparedFile

CREATED_MS = 1_700_000_000_000
DRAW = np.random.default_rng(0)


def network(shape: list[Any]) -> Any:
    """A small convolutional network of pictures of 8 x 8, with a logit as output."""
    weights = {
        "kernel": DRAW.normal(0, 0.3, (4, 1, 3, 3)), "bias": np.zeros(4), "last": DRAW.normal(0, 0.02, (4 * 36, 1)), "lift": np.zeros(1),
        "picture": np.array([-1, 1, 8, 8]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["image", "picture"], ["shaped"]),
        helper.make_node("Conv", ["shaped", "kernel", "bias"], ["seen"]),
        helper.make_node("Relu", ["seen"], ["bright"]),
        helper.make_node("Flatten", ["bright"], ["flat"]),
        helper.make_node("Gemm", ["flat", "last", "lift"], ["logit"]),
    ]
    constants = [
        numpy_helper.from_array(np.asarray(value, np.int64 if name == "picture" else np.float32), name) for name, value in weights.items()
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    logit = helper.make_tensor_value_info("logit", TensorProto.FLOAT, [shape[0], 1])
    graph = helper.make_graph(nodes, "network", [image], [logit], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def declared(shape: tuple[int, ...], more: list[Any] | None = None) -> tm.Model:
    """The desk's model of a picture."""
    return project([tm.Tensor("pixels", shape=shape), *(more or [])]).models["urgent"]


def contract(**more: Any) -> dict[str, Any]:
    """The picture is the file's only input."""
    return {"inputs": ["pixels"], "output": {"name": "logit", "gives": "logit"}} | more


def prepared(folder: Path, model: Any, agreed: Any, of: tm.Model) -> PreparedFile:
    """A file that fits its contract."""
    return prepare(of, *written(folder, model, agreed))


def alone(model: Any, pixels: Any, shape: list[int]) -> float:
    """What the file itself answers, as a probability."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": np.asarray(pixels, np.float32).reshape(shape)})
    return float(1 / (1 + np.exp(-found[0, 0])))


def made(folder: Path, model: Any, agreed: Any, of: tm.Model, examples: TrainingSet) -> Imported:
    """The version of a file."""
    return make_imported(prepared(folder, model, agreed, of), examples, CREATED_MS, lambda _: None)


@pytest.mark.parametrize(("shape", "file"), [((8, 8), ["rows", 1, 8, 8]), ((1, 8, 8), ["rows", 64]), ((64,), [1, 1, 8, 8])], ids=str)
def test_a_network_of_pictures_is_served(shape: tuple[int, ...], file: list[Any], tmp_path: Path) -> None:
    """Whatever the shape of the tensor and that of the file, as long as they have as many elements."""
    model, examples = network(file), digits()
    (spec,) = examples.inputs
    examples = TrainingSet(
        examples.values,
        examples.labels,
        examples.times_ms,
        examples.subjects,
        [type(spec)(spec.name, spec.kind, spec.categories, list(shape))],
    )
    version = made(tmp_path, model, contract(), declared(shape), examples)
    manifest, engine = version.artifact.manifest, load_engine(version.artifact)
    assert [(item.kind, item.categories, item.shape) for item in manifest.inputs] == [("tensor", [], list(shape))]
    assert manifest.parity.max_abs_diff < 1e-6
    for pixels in (np.zeros(64), np.full(64, 16.0), DRAW.uniform(0, 16, 64)):
        wanted = alone(model, pixels, [1, *file[1:]])
        assert engine.predict(np.array([np.nan], np.float32), [tensor_content(pixels)]) == pytest.approx(wanted, abs=1e-6)


def test_a_picture_beside_numbers(tmp_path: Path) -> None:
    """A file of two inputs, one a tensor and one a number with what stands for a missing one; with examples that prove it."""
    model = network(["rows", 1, 8, 8])
    model.graph.input.append(helper.make_tensor_value_info("size", TensorProto.FLOAT, ["rows", 1]))
    model.graph.node.append(helper.make_node("Add", ["logit", "size"], ["sum"]))
    model.graph.output[0].name = "sum"
    found = digits()
    values = np.hstack([found.values, np.where(np.arange(len(found))[:, None] % 3, 0.5, np.nan)])
    examples = TrainingSet(values, found.labels, found.times_ms, found.subjects, [*found.inputs, type(found.inputs[0])("amount", "number")])
    pixels = DRAW.uniform(0, 16, (8, 8)).tolist()
    first = {"pixels": pixels, "amount": None, "expected": plus(model, pixels, -1.0)}
    (tmp_path / "rows.json").write_bytes(tm_json([first, first | {"amount": 2.0, "expected": plus(model, pixels, 2.0)}]))
    agreed = contract(
        inputs={"image": ["pixels"], "size": ["amount"]}, output={"name": "sum", "gives": "logit"}, missing={"amount": -1.0}, examples="rows.json",
    )  # fmt: skip
    version = made(tmp_path, model, agreed, declared((8, 8), [tm.Request("amount")]), examples)
    engine = load_engine(version.artifact)
    for amount, added in ((np.nan, -1.0), (2.0, 2.0)):
        answer = engine.predict(np.array([0, amount], np.float32), [tensor_content(np.array(pixels))])
        assert answer == pytest.approx(plus(model, pixels, added), abs=1e-6)


def plus(model: Any, pixels: Any, size: float) -> float:
    """What the file of two inputs answers."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"image": np.asarray(pixels, np.float32).reshape(1, 1, 8, 8), "size": np.array([[size]], np.float32)}
    return float(1 / (1 + np.exp(-session.run(["sum"], given)[0][0, 0])))


def tm_json(rows: list[dict[str, Any]]) -> bytes:
    """Rows as a file of examples."""
    return json.dumps(rows).encode()


@pytest.mark.parametrize(
    ("of", "agreed", "cause"),
    [
        (declared((8, 4)), contract(), "has 64 numbers a row, and the contract 32 columns"),
        (declared((8, 8), [tm.Words("note")]), contract(), "'note' of model 'urgent' is words"),
        (declared((8, 8)), contract(categories={"pixels": ["a"]}), "the contract has categories"),
    ],
)
def test_what_does_not_fit_is_refused(of: tm.Model, agreed: Any, cause: str, tmp_path: Path) -> None:
    """In one line: another number of elements, words, a tensor as a category."""
    with pytest.raises(TidemillError, match=cause):
        prepared(tmp_path, network(["rows", 1, 8, 8]), agreed, of)
