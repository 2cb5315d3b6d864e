"""Small ONNX models: one that answers, one that answers NaN, and one that never does."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tidemill.models.artifact import Artifact, GoldenRow, Manifest, ModelInput, Parity


def version(name: str, kind: str = "good") -> Artifact:
    """A model of one input with a probability of a half; `kind`: good, nan or hang."""
    onnx = _model(kind).SerializeToString()
    manifest = Manifest(
        model="late", version=name, created=1, inputs=[ModelInput("size", "number")], output="probability", definitions={}, trained_from=0,
        trained_until=1, rows=100, metrics={}, parity=Parity(0.0, 0, 1e-4), reference={}, onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        golden=[GoldenRow([1.0], 0.5)] if kind == "good" else [],
    )  # fmt: skip
    return Artifact(manifest, onnx)


def _model(kind: str) -> Any:
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 1])
    gives = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])
    half, none = np.full((1, 2), 0.5, np.float32), np.zeros((1, 2), np.float32)
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "none", "features"], ["known"]),
        helper.make_node("Mul", ["known", "none"], ["zero"]),
        helper.make_node("Add", ["zero", "half"], ["sum"]),
        helper.make_node("Div", ["none", "none"], ["nan"]),
        helper.make_node("Add", ["sum", "nan"] if kind == "nan" else ["sum", "none"], ["last"]),
    ]
    if kind == "hang":
        nodes.append(helper.make_node("Loop", ["many", "true", "last"], ["probabilities"], body=_forever()))
    else:
        nodes.append(helper.make_node("Identity", ["last"], ["probabilities"]))
    constants = [
        numpy_helper.from_array(half, "half"), numpy_helper.from_array(none, "none"),
        numpy_helper.from_array(np.array(2**62, np.int64), "many"), numpy_helper.from_array(np.array(True), "true"),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, kind, [given], [gives], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _forever() -> Any:
    """A step of a loop that changes nothing."""
    step, more = helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("more", TensorProto.BOOL, [])
    again = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    carried, given = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("carried", "given"))
    nodes = [helper.make_node("Identity", ["more"], ["again"]), helper.make_node("Identity", ["carried"], ["given"])]
    return helper.make_graph(nodes, "forever", [step, more, carried], [again, given])
