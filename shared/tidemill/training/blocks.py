"""The front of a graph whose pipeline names its columns: from one float32 matrix to a block of numbers, and each text as a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from skl2onnx.common.data_types import FloatTensorType, StringTensorType

from tidemill.models.artifact import ModelInput

MISSING_TEXT = "\uffffmissing"
"""What a missing text is in the graph: ONNX knows no missing text."""
_NUMBERS, _ML = "numbers", "ai.onnx.ml"


def block_types(inputs: Sequence[ModelInput]) -> list[tuple[str, Any]]:
    """The inputs of the pipeline's own graph: the numbers as one block, then each text, then each content."""
    count = sum(not spec.has_texts for spec in inputs)
    numbers = [(_NUMBERS, FloatTensorType([None, count]))] if count else []
    texts = [(f"text_{i}", StringTensorType([None, 1])) for i, spec in enumerate(inputs) if spec.is_category]
    return numbers + texts + content_types(inputs)


def block_places(inputs: Sequence[ModelInput]) -> list[int]:
    """For each column of the pipeline's rows, its place among the columns of all blocks."""
    first = np.cumsum([0, *map(width, inputs)]).tolist()
    blocks = sorted(range(len(inputs)), key=lambda i: (inputs[i].is_content, inputs[i].is_category))
    order = [column for i in blocks for column in range(first[i], first[i + 1])]
    return [order.index(column) for column in range(first[-1])]


def content_block(i: int) -> str:
    """The name of a content among the inputs of the pipeline's own graph."""
    return f"content_{i}"


def content_types(inputs: Sequence[ModelInput]) -> list[tuple[str, Any]]:
    """The contents among the inputs of the pipeline's own graph: texts, and the elements of tensors."""
    return [
        (content_block(i), StringTensorType([None, 1]) if spec.kind == "words" else FloatTensorType([None, math.prod(spec.lengths)]))
        for i, spec in enumerate(inputs)
        if spec.is_content
    ]


def width(spec: ModelInput) -> int:
    """How many columns an input is for a pipeline."""
    return math.prod(spec.lengths)


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
            nodes.append(decoded(block, gathered, inputs[wanted[0]].categories))
    kept = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *kept])
    graph.initializer.extend(constants)
    graph.input.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(inputs)]))
    newer_labels(model)


def newer_labels(model: Any) -> None:
    """Lets a graph make texts of numbers."""
    version = max([opset.version for opset in model.opset_import if opset.domain == _ML], default=0)
    others = [opset for opset in model.opset_import if opset.domain != _ML]
    del model.opset_import[:]
    model.opset_import.extend([*others, helper.make_opsetid(_ML, max(version, 3))])  # since 2, numbers may become texts


def decoded(block: str, numbers: str, categories: Sequence[str]) -> Any:
    """The node that makes the numbers of a category its texts."""
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
