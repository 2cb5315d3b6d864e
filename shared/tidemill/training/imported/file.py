"""An ONNX file as it was written elsewhere: read whole, checked, and its inputs described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from tidemill.errors import ArtifactError, TidemillError
from tidemill.models.runner import OnnxRunner
from tidemill.training.imported.contract import Contract

_OLDEST = 9  # since then a graph can ask whether a number is missing
WHOLE = (
    TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8,
    TensorProto.UINT64, TensorProto.UINT32, TensorProto.UINT16, TensorProto.UINT8, TensorProto.BOOL,
)  # fmt: skip
"""Types of inputs that have no missing numbers."""
_NUMBERS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, *WHOLE)


class FileInput(NamedTuple):
    """An input of a file: its name, the type of its elements as ONNX numbers them, its lengths (None: any; no list: not said), and the
    declared inputs that are its columns."""

    name: str
    kind: int
    shape: list[int | None] | None
    columns: list[str]

    def __str__(self) -> str:
        lengths = "any" if self.shape is None else ", ".join("any" if length is None else str(length) for length in self.shape)
        return f"{self.name} {kind_name(self.kind)} [{lengths}]"

    @property
    def lengths(self) -> list[int]:
        """The lengths of one row, with -1 for the rows."""
        if self.shape is None or any(length is None for length in self.shape[1:]):
            return [-1, len(self.columns)]
        return [-1, *(length or 0 for length in self.shape[1:])]


class ModelFile(NamedTuple):
    """A file: the graph, and its inputs with their columns."""

    model: Any
    inputs: list[FileInput]


def kind_name(kind: int) -> str:
    """The type of elements, in words."""
    name: str = TensorProto.DataType.Name(kind)
    return name.lower()


def read_file(path: Path, contract: Contract, elements: Mapping[str, Sequence[str]] | None = None) -> ModelFile:
    """Reads a file with the data beside it, and finds the columns of its inputs. `elements`: those of each tensor, in whose place they stand. Raises TidemillError, which says what cannot be taken."""
    model = _read(path)
    try:
        OnnxRunner(path.name, model.SerializeToString())
    except ArtifactError as error:
        raise TidemillError(f"{path}: onnxruntime cannot load it: {_reason(error.__cause__)}", mend=_load_mend(model)) from error
    if (opset := _opset(model)) < _OLDEST:
        raise TidemillError(
            f"{path} has opset {opset}; {_OLDEST} is the oldest that is taken", mend="convert it: onnx.version_converter.convert_version"
        )
    return ModelFile(model, _inputs(path, model, contract, elements or {}))


def _read(path: Path) -> Any:
    try:
        model = onnx.load(str(path))
    except DecodeError as error:
        raise TidemillError(f"{path} is no ONNX file, or is cut short: {_reason(error)}", mend="export it again") from error
    except Exception as error:  # of a missing file, or of data beside it: onnx raises errors of several kinds
        raise TidemillError(
            f"{path} cannot be read: {_reason(error)}", mend="name an ONNX file, and keep the data that it names beside it"
        ) from error
    if not model.graph.node:
        raise TidemillError(f"{path} is no ONNX file: it has no nodes", mend="name the .onnx file itself")
    return model


def _reason(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _load_mend(model: Any) -> str:
    opset = _opset(model)
    if opset > onnx.defs.onnx_opset_version():
        return f"export it with opset {onnx.defs.onnx_opset_version()} or less; it has {opset}"
    own = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx", "ai.onnx.ml"})
    return f"export it without operators of {', '.join(own)}" if own else "export it again, with an older opset"


def _opset(model: Any) -> int:
    """The opset of ONNX's own operators; the oldest that is taken for a file that has none of these."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), _OLDEST)


def _inputs(path: Path, model: Any, contract: Contract, elements: Mapping[str, Sequence[str]]) -> list[FileInput]:
    constants = {value.name for value in model.graph.initializer}
    wanted = [value for value in model.graph.input if value.name not in constants]
    columns = _columns(path, [value.name for value in wanted], contract)
    whole = {name: [one for column in names for one in elements.get(column, [column])] for name, names in columns.items()}
    found = [_input(path, value, whole[value.name]) for value in wanted]
    for item in found:
        _check(path, item, contract)
    return found


def _columns(path: Path, names: Sequence[str], contract: Contract) -> dict[str, list[str]]:
    """The declared inputs of each input of the file."""
    if isinstance(contract.inputs, dict):
        found = contract.inputs
    elif len(names) == 1:
        found = {names[0]: contract.inputs}
    else:
        found = {name: [name] for name in contract.inputs}
    if set(found) != set(names):
        raise TidemillError(
            f"{path} has the inputs {', '.join(names) or 'none'}, and the contract {', '.join(found)}",
            mend='name the inputs of the file in the contract: "inputs": {"INPUT OF THE FILE": ["declared input", ...]}',
        )
    return found


def _input(path: Path, value: Any, columns: list[str]) -> FileInput:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise TidemillError(f"{path}: input {value.name} is no tensor", mend="export it with tensors as inputs")
    shape = [axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim] if tensor.HasField("shape") else None
    return FileInput(value.name, tensor.elem_type, shape, columns)


def _check(path: Path, item: FileInput, contract: Contract) -> None:
    """Raises TidemillError for an input that cannot have its columns."""
    texts = [name for name in item.columns if name in contract.categories]
    if item.kind == TensorProto.STRING:
        if numbers := [name for name in item.columns if name not in contract.categories]:
            raise TidemillError(f"{path}: {item} takes texts, and {numbers[0]!r} is a number", mend="correct inputs of the contract")
        _check_texts(path, item, contract)
    elif item.kind not in _NUMBERS:
        raise TidemillError(f"{path}: {item} takes no numbers that a model can be given", mend="export it with a float32 input")
    elif item.kind in WHOLE and (lacking := [name for name in item.columns if name not in contract.missing]):
        raise TidemillError(
            f"{path}: {item} cannot hold a missing {lacking[0]!r}", mend=f'say what stands for it: "missing": {{"{lacking[0]}": -1}}'
        )
    else:
        for name in texts:
            contract.codes(name)
        for name in item.columns:
            contract.missing_number(name)
    _check_shape(path, item)


def _check_texts(path: Path, item: FileInput, contract: Contract) -> None:
    for name in item.columns:
        given = {key: value for part in (contract.missing, contract.unknown) for key, value in part.items() if key == name}
        if name not in contract.missing or not all(isinstance(value, str) for value in given.values()):
            raise TidemillError(
                f"{path}: {item} takes texts, and needs one for a missing {name!r}",
                mend=f'say which: "missing": {{"{name}": "a text that the file takes"}}',
            )


def _check_shape(path: Path, item: FileInput) -> None:
    if item.shape is None:
        return
    if not item.shape or (item.shape[0] or 1) != 1:
        raise TidemillError(
            f"{path}: {item} takes no single row", mend="export it with rows as its first axis, of any length (dynamic_axes) or 1"
        )
    if (size := int(np.prod(item.lengths[1:]))) != len(item.columns):
        raise TidemillError(
            f"{path}: {item} has {size} numbers a row, and the contract {len(item.columns)} columns: {', '.join(item.columns[:8])}",
            mend="name one declared input for each column, in the order of the file",
        )


def array_type(kind: int) -> Any:
    """The type of an array that an input takes."""
    return np.dtype(object) if kind == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(kind)
