"""Model files as other people's tools write them, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT, DOUBLE, INT64, TEXT = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING
Shaped = tuple[str, int, Any]


def made(
    nodes: Sequence[Any], inputs: Sequence[Shaped], outputs: Sequence[Shaped], constants: Mapping[str, Any] | None = None, opset: int = 17
) -> Any:
    """A model of these nodes."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    taken, given = ([helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in part] for part in (inputs, outputs))
    graph = helper.make_graph(list(nodes), "main_graph", taken, given, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


class Perceptron:
    """A network of two layers, with random weights, and the same in numpy."""

    def __init__(self, columns: int, outputs: int = 1) -> None:
        draw = np.random.default_rng(columns + outputs)
        self.weights = {
            "net.0.weight": draw.normal(size=(8, columns)) / 300,
            "net.0.bias": draw.normal(size=8),
            "net.2.weight": draw.normal(size=(outputs, 8)),
            "net.2.bias": draw.normal(size=outputs),
        }
        self.columns, self.outputs = columns, outputs

    def onnx(self, kind: int = FLOAT, rows: Any = "batch") -> Any:
        """The file as PyTorch's exporter writes it: Gemm, Relu, Gemm; the inputs `input`, the output `output`."""
        nodes = [
            helper.make_node("Gemm", ["input", "net.0.weight", "net.0.bias"], ["/net/net.0/Gemm_output_0"], "/net/net.0/Gemm", transB=1),
            helper.make_node("Relu", ["/net/net.0/Gemm_output_0"], ["/net/net.1/Relu_output_0"], "/net/net.1/Relu"),
            helper.make_node("Gemm", ["/net/net.1/Relu_output_0", "net.2.weight", "net.2.bias"], ["output"], "/net/net.2/Gemm", transB=1),
        ]
        constants = {name: weight.astype(helper.tensor_dtype_to_np_dtype(kind)) for name, weight in self.weights.items()}
        return made(nodes, [("input", kind, [rows, self.columns])], [("output", kind, [rows, self.outputs])], constants)

    def answers(self, rows: np.ndarray) -> np.ndarray:
        """What the file gives, in numpy."""
        w = self.weights
        hidden = np.maximum(0, rows @ w["net.0.weight"].T + w["net.0.bias"])
        return np.asarray(hidden @ w["net.2.weight"].T + w["net.2.bias"])
