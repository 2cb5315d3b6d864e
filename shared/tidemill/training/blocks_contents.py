"""The front of a graph whose model takes contents: from `features`, the numbers, and one tensor for each content, to what the pipeline takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx.common.data_types import FloatTensorType

from tidemill.declarations.models import FEATURES
from tidemill.models.artifact import ModelInput
from tidemill.models.terms import METADATA, TermRule, write_rules
from tidemill.training.blocks import content_block, content_types, decoded, newer_labels, width

NUMBERS, MATRIX = "numbers", "matrix"


def plain_types(inputs: Sequence[ModelInput]) -> list[tuple[str, Any]]:
    """The input of the graph of a pipeline that names no columns: a single text, or a matrix with the elements of tensors."""
    if any(spec.kind == "words" for spec in inputs):
        return content_types(inputs)
    return [(MATRIX, FloatTensorType([None, sum(map(width, inputs))]))]


def add_contents(model: Any, inputs: Sequence[ModelInput], rules: Mapping[str, Sequence[TermRule]]) -> None:
    """Makes a graph of blocks, or of a matrix, one that takes `features` and each content by its name. `rules`: of the graph's own texts."""
    front = _ContentFront(inputs)
    for block in [value.name for value in model.graph.input]:
        front.make(block)
    kept = list(model.graph.node)
    for node in kept:
        node.input[:] = [front.renamed.get(name, name) for name in node.input]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*front.nodes, *kept])
    model.graph.initializer.extend(front.constants)
    model.graph.input.extend(_graph_inputs(inputs))
    if front.has_texts:
        newer_labels(model)
    by_name = {inputs[int(text.removeprefix("content_"))].name: list(of_text) for text, of_text in rules.items()}
    if by_name:
        helper.set_model_props(model, {METADATA: write_rules(dict(sorted(by_name.items())))})


def fed_by_contents(onnx_file: bytes, inputs: Sequence[ModelInput]) -> bytes:
    """A graph of one matrix `features`, in which a tensor's elements stand in its place, as one that takes contents by their names."""
    if not any(spec.is_content for spec in inputs):
        return onnx_file
    model = onnx.load_from_string(onnx_file)
    constants = [value for value in model.graph.input if value.name != FEATURES]
    for node in model.graph.node:
        node.input[:] = [MATRIX if name == FEATURES else name for name in node.input]
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(MATRIX, TensorProto.FLOAT, [None, None]))
    add_contents(model, inputs, {})
    model.graph.input.extend(constants)
    return bytes(model.SerializeToString(deterministic=True))


def _graph_inputs(inputs: Sequence[ModelInput]) -> list[Any]:
    numbers = sum(not spec.is_content for spec in inputs)
    found = [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [None, numbers])] if numbers else []
    for spec in inputs:
        if spec.is_content:
            kind, shape = (TensorProto.STRING, [None, None]) if spec.kind == "words" else (TensorProto.FLOAT, [None, *spec.lengths])
            found.append(helper.make_tensor_value_info(spec.name, kind, shape))
    return found


class _ContentFront:
    """Nodes that make the inputs of the pipeline's own graph. `renamed`: those that need no node, by the names that they have from now on."""

    def __init__(self, inputs: Sequence[ModelInput]) -> None:
        self._inputs = inputs
        self._numbers = [i for i, spec in enumerate(inputs) if not spec.is_content]
        self.has_texts = False
        self.nodes, self.constants, self.renamed = list[Any](), list[Any](), dict[str, str]()

    def make(self, block: str) -> None:
        """Makes one of the graph's inputs."""
        place = int(block.rpartition("_")[2]) if "_" in block else -1
        if block.startswith("content_"):
            self._content(block, place)
        elif block.startswith("text_"):
            self.has_texts = True
            codes = self._gathered(block, FEATURES, [self._numbers.index(place)])
            self.nodes.append(decoded(block, codes, self._inputs[place].categories))
        elif block == MATRIX:
            self._matrix()
        else:
            plain = [k for k, i in enumerate(self._numbers) if not self._inputs[i].is_category]
            self._gathered(block, FEATURES, plain, block)

    def _content(self, block: str, place: int) -> None:
        name = self._inputs[place].name
        if self._inputs[place].kind == "words":
            self.renamed[block] = name
        else:
            self.nodes.append(helper.make_node("Flatten", [name], [block], name=f"{block}_flatten", axis=1))

    def _matrix(self) -> None:
        """Numbers and elements side by side, in the order of the inputs."""
        parts = []
        for i, spec in enumerate(self._inputs):
            if spec.is_content:
                self._content(content_block(i), i)
                parts.append(content_block(i))
            else:
                parts.append(self._gathered(f"number_{i}", FEATURES, [self._numbers.index(i)]))
        if len(parts) == 1:
            self.nodes[-1].output[:] = [MATRIX]
        else:
            self.nodes.append(helper.make_node("Concat", parts, [MATRIX], name="matrix_concat", axis=1))

    def _gathered(self, block: str, source: str, columns: Sequence[int], output: str | None = None) -> str:
        output = output or f"{block}_numbers"
        self.constants.append(numpy_helper.from_array(np.array(columns, np.int64), f"{block}_columns"))
        self.nodes.append(helper.make_node("Gather", [source, f"{block}_columns"], [output], name=f"{block}_gather", axis=1))
        return output
