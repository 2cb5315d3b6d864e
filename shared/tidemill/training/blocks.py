"""The front of a graph whose pipeline names its columns: from one float32 matrix to a block of numbers, and each text as a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto, helper
from skl2onnx.common.data_types import FloatTensorType, StringTensorType

from tidemill.models.artifact import ModelInput

MISSING_TEXT = "\uffffmissing"
"""What a missing text is in the graph: ONNX knows no missing text."""
_NUMBERS, _ML = "numbers", "ai.onnx.ml"


def block_types(inputs: Sequence[ModelInput]) -> list[tuple[str, Any]]:
    """The inputs of the pipeline's own graph: the numbers as one block, then each text."""
    count = sum(not spec.is_category for spec in inputs)
    numbers = [(_NUMBERS, FloatTensorType([None, count]))] if count else []
    return numbers + [(f"text_{i}", StringTensorType([None, 1])) for i, spec in enumerate(inputs) if spec.is_category]


def block_places(inputs: Sequence[ModelInput]) -> list[int]:
    """For each input, its place among the columns of all blocks."""
    order = [i for i, spec in enumerate(inputs) if not spec.is_category] + [i for i, spec in enumerate(inputs) if spec.is_category]
    return [order.index(i) for i in range(len(inputs))]


def add_front(model: Any, inputs: Sequence[ModelInput]) -> None:
    """Makes a graph of blocks one of a single float32 input `features`."""
    graph, nodes, constants = model.graph, list[Any](), list[Any]()
    for block in [value.name for value in graph.input]:
        texts = block != _NUMBERS
        wanted = [int(block.removeprefix("text_"))] if texts else [i for i, spec in enumerate(inputs) if not spec.is_category]
        constants.append(helper.make_tensor(f"{block}_columns", TensorProto.INT64, [len(wanted)], wanted))
        gathered = f"{block}_numbers" if texts else block
        nodes.append(helper.make_node("Gather", ["features", f"{block}_columns"], [gathered], name=f"{block}_gather", axis=1))
        if texts:
            nodes.append(_texts(block, gathered, inputs[wanted[0]].categories))
    kept = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *kept])
    graph.initializer.extend(constants)
    graph.input.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(inputs)]))
    version = max([opset.version for opset in model.opset_import if opset.domain == _ML], default=0)
    others = [opset for opset in model.opset_import if opset.domain != _ML]
    del model.opset_import[:]
    model.opset_import.extend([*others, helper.make_opsetid(_ML, max(version, 3))])  # since 2, numbers may become texts


def _texts(block: str, numbers: str, categories: Sequence[str]) -> Any:
    return helper.make_node(
        "LabelEncoder",
        [numbers],
        [block],
        name=f"{block}_decode",
        domain=_ML,
        keys_floats=[float(place) for place in range(len(categories))],
        values_strings=list(categories),
        default_string=MISSING_TEXT,
    )
