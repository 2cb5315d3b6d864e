"""Runners compute a model: named arrays in, named arrays out.

A `Runner` has one or more inputs and outputs and describes them. `OnnxRunner` is made from the bytes of an ONNX file alone; any other code
that computes arrays from arrays can take its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from tidemill.errors import ArtifactError

Array = npt.NDArray[Any]

_NUMPY_TYPES = {"float": "float32", "double": "float64", "string": "object"}
_TENSOR = "tensor("


class TensorSpec(NamedTuple):
    """One input or output: its name, the type of its elements, and its shape (None: any length)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        lengths = ", ".join("any" if length is None else str(length) for length in self.shape)
        return f"{self.name} {self.dtype} [{lengths}]"


class Runner(Protocol):
    """A model that can be run. It has no state between two calls."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The inputs that `run` needs, in the model's order."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The outputs that `run` can give, in the model's order."""

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str] | None = None) -> list[Array]:
        """The outputs named in `wanted`, in that order; by default all of `outputs`. `inputs`: an array for each input, by name."""


class OnnxRunner:
    """An ONNX model on one thread, so that the output of a run never depends on other runs.

    `label` names the model in errors. Raises ArtifactError when onnxruntime cannot load the bytes.
    """

    def __init__(self, label: str, onnx: bytes) -> None:
        self._session = _session(label, onnx)
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._names = [spec.name for spec in self.outputs]

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str] | None = None) -> list[Array]:
        """The outputs named in `wanted`, in that order; by default all of `outputs`."""
        found: list[Array] = self._session.run(wanted or self._names, inputs)
        return found


def _specs(found: Sequence[Any]) -> list[TensorSpec]:
    """The tensors among the inputs or outputs of a session. Maps and sequences are not arrays, so they are left out."""
    return [
        TensorSpec(item.name, _dtype(item.type), tuple(length if isinstance(length, int) else None for length in item.shape))
        for item in found
        if item.type.startswith(_TENSOR)
    ]


def _dtype(onnx_type: str) -> np.dtype[Any]:
    name = onnx_type.removeprefix(_TENSOR).removesuffix(")")
    try:
        return np.dtype(_NUMPY_TYPES.get(name, name))
    except TypeError:  # a type that numpy does not have, such as bfloat16
        return np.dtype(object)


def _session(label: str, onnx: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exceptions of onnxruntime have no common root
        raise ArtifactError(f"{label} is not a model that onnxruntime can load: {error}", mend="make the version again") from error
