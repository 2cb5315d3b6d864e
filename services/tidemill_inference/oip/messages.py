"""Requests and answers of the protocol, independent of their transport: HTTP or gRPC. Pure.

https://github.com/kserve/open-inference-protocol. Tensors of numbers become float32 here, the type that models take.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tidemill.errors import BadRequest
from tidemill.models.answers import ModelAnswer, chosen
from tidemill.models.artifact import Manifest, ModelInput
from tidemill.models.inputs import Vector

MAX_ROWS = 5_000
CLASS = "class"
NUMBERS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    f"{name}{8 * size}": f"<{code}{size}" for name, code in (("INT", "i"), ("UINT", "u")) for size in (1, 2, 4, 8)
}
"""Numpy's code of each type of number, little-endian. BOOL and BYTES are not numbers."""


class TensorMetadata(NamedTuple):
    """An input or output of a model: any number of rows of so many columns, or of a `shape`; of float32, or of texts (BYTES)."""

    name: str
    columns: int
    datatype: str = "FP32"
    shape: Sequence[int] = ()

    @property
    def row(self) -> list[int]:
        """The shape of a row."""
        return list(self.shape) or [self.columns]


class ModelSpec(NamedTuple):
    """A model version as clients see it. `versions`: all that serve; `names`: the names of the input columns; `classes`: those of the columns of
    `probabilities`, for a model of several classes."""

    model: str
    version: str
    versions: Sequence[str]
    inputs: Sequence[TensorMetadata]
    outputs: Sequence[TensorMetadata]
    names: Sequence[str]
    classes: Sequence[str] = ()


class TensorHead(NamedTuple):
    """The description of an input in a request, without its numbers."""

    name: str
    datatype: str
    shape: Sequence[int]
    parameters: Mapping[str, Any]


class Asked(NamedTuple):
    """An output that a request asks for."""

    name: str
    parameters: Mapping[str, Any]


class InferRequest(NamedTuple):
    """A checked request: float32 of shape (rows, columns) by input, the client's id, and whether the answer has each output in binary; by input that
    the model takes whole the contents of the rows."""

    inputs: Mapping[str, Vector]
    id: str
    binary: Mapping[str, bool]
    contents: Mapping[str, list[str]] = {}


Cells = Sequence[Sequence[float]] | Sequence[Sequence[str]]
"""The rows of an output: numbers, or texts."""


class InferAnswer(NamedTuple):
    """The rows of each output. `prediction_id`: the id of the first row in the prediction log."""

    model: str
    version: str
    id: str
    prediction_id: str
    outputs: Mapping[str, Cells]


def model_spec(manifest: Manifest, input_name: str, versions: Sequence[str]) -> ModelSpec:
    """The model of a manifest: one matrix in, and what it takes whole; out one number for each row, or the probability of each class and the chosen class."""
    columns, classes = [item.name for item in manifest.inputs if not item.is_content], manifest.class_names
    whole = [_whole(item) for item in manifest.inputs if item.is_content]
    inputs, outputs = [TensorMetadata(input_name, len(columns))], [TensorMetadata(manifest.output, len(classes) or 1)]
    inputs = [*(inputs if columns else []), *whole]
    if classes:
        outputs.append(TensorMetadata(CLASS, 1, "BYTES"))
    return ModelSpec(manifest.model, manifest.version, versions, inputs, outputs, columns, classes)


def _whole(item: ModelInput) -> TensorMetadata:
    """An input that the model takes whole: a text in each row, or a tensor."""
    return (
        TensorMetadata(item.name, 1, "BYTES")
        if item.kind == "words"
        else TensorMetadata(item.name, math.prod(item.lengths), shape=item.lengths)
    )


def outputs_of(spec: ModelSpec, answers: Sequence[ModelAnswer]) -> dict[str, Cells]:
    """The outputs of a model, from the answers to its rows."""
    if not spec.classes:
        return {spec.outputs[0].name: [[answer.output] for answer in answers]}
    probabilities = [list(answer.probabilities.values()) for answer in answers]
    return {spec.outputs[0].name: probabilities, CLASS: [[chosen(answer.probabilities)] for answer in answers]}


def check_inputs(heads: Sequence[TensorHead], spec: ModelSpec) -> None:
    """Raises BadRequest with the reason, unless the request has each input of the model once, with numbers of its shape."""
    wanted = {item.name: item for item in spec.inputs}
    names = [head.name for head in heads]
    if sorted(names) != sorted(wanted):
        raise BadRequest(f"the inputs are {names!r:.200}; the model has {', '.join(map(repr, wanted))}")
    for head in heads:
        _check_input(head, wanted[head.name])
    if len({head.shape[0] for head in heads}) > 1:
        raise BadRequest(f"the inputs {', '.join(names)} have not the same number of rows")


def _check_input(head: TensorHead, wanted: TensorMetadata) -> None:
    name, shape = head.name, list(head.shape)
    if wanted.datatype == "BYTES":
        if head.datatype != "BYTES":
            raise BadRequest(
                f"input {name!r}: datatype {head.datatype!r:.50} is not BYTES, and it takes a text", mend="send the texts as BYTES"
            )
        shape = [*shape, 1] if len(shape) == 1 else shape
    elif head.datatype not in NUMBERS:
        raise BadRequest(f"input {name!r}: datatype {head.datatype!r:.50} is not a number's", mend=f"use one of {', '.join(NUMBERS)}")
    if shape[1:] != wanted.row or not 0 < shape[0] <= MAX_ROWS:
        raise BadRequest(f"input {name!r}: shape {list(head.shape)!r:.100} is not [1 to {MAX_ROWS}, {', '.join(map(str, wanted.row))}]")
    if any(key.startswith("shared_memory") for key in head.parameters):
        raise BadRequest(f"input {name!r}: shared memory is not offered", mend="send the data")


def matrix_of(name: str, values: Any, shape: Sequence[int]) -> Vector:
    """The float32 matrix of an input's numbers; NaN is an unknown value. Raises BadRequest for a number that float32 cannot hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = np.asarray(values, np.float32).reshape(tuple(shape))
    if np.isinf(matrix).any():
        raise BadRequest(
            f"input {name!r} has values that float32 cannot hold", mend="give null (JSON) or NaN (binary) for an unknown value"
        )
    return matrix


def wants_binary(asked: Iterable[Asked], parameters: Mapping[str, Any], spec: ModelSpec) -> dict[str, bool]:
    """The outputs to give, and whether each is binary; all outputs of the model when the request names none.

    Raises BadRequest for an output that the model does not have, or a form that is not offered.
    """
    names, default = [item.name for item in spec.outputs], parameters.get("binary_data_output", False)
    wanted: dict[str, bool] = {}
    for item in asked:
        if item.name not in names:
            raise BadRequest(f"the model has no output {item.name!r:.100}", mend=f"ask for {', '.join(map(repr, names))}")
        offered = {key for key in item.parameters if key == "classification" or key.startswith("shared_memory")}
        if offered:
            raise BadRequest(f"output {item.name!r}: {', '.join(sorted(offered))} is not offered", mend="ask for the plain tensor")
        wanted[item.name] = item.parameters.get("binary_data", default) is True
    return wanted or dict.fromkeys(names, default is True)


def metadata(spec: ModelSpec) -> dict[str, Any]:
    """The metadata of a model; -1 is any number of rows. The property `classes` is a JSON list, since a class may have a comma in its name."""
    return {
        "name": spec.model,
        "versions": list(spec.versions),
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": item.name, "datatype": item.datatype, "shape": [-1, *item.row]} for item in spec.inputs],
        "outputs": [{"name": item.name, "datatype": item.datatype, "shape": [-1, item.columns]} for item in spec.outputs],
        "properties": {"columns": ",".join(spec.names)} | ({"classes": msgspec.json.encode(spec.classes).decode()} if spec.classes else {}),
    }
