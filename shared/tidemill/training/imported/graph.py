"""The graph around a file: one float32 matrix in, one float32 output out, as the engine takes it from any other model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, compose, helper

from tidemill.errors import ArtifactError, TidemillError
from tidemill.models.runner import OnnxRunner
from tidemill.training.imported.contract import Contract
from tidemill.training.imported.file import ModelFile
from tidemill.training.imported.front import FEATURES, front
from tidemill.training.imported.tail import SERVED, Answered, check_width, class_map, named_classes, output_of, tail

_PREFIX = "file/"  # so that no name of the file is one of ours
_ONNX = 9


class Wrapped(NamedTuple):
    """A file with the graph around it, and what it answers. `classes`: as they are served."""

    onnx: bytes
    answered: Answered
    classes: list[str]


def wrap(file: ModelFile, contract: Contract, order: Sequence[str], classes: Sequence[str] = ()) -> Wrapped:
    """Makes the graph. `order`: the declared inputs, as the columns of the matrix; `classes`: in the order in which they are served, if it is
    not that of the contract. Raises TidemillError when the file's output is not what the contract says."""
    served = list(classes) or contract.classes
    fronted = _fronted(file, contract, order)
    answered = _answered(fronted, file, contract, len(order))
    _output(fronted, SERVED, answered.served_width)
    fronted.graph.node.extend(tail(answered, contract, served))
    return Wrapped(bytes(fronted.SerializeToString()), answered, served)


def _fronted(file: ModelFile, contract: Contract, order: Sequence[str]) -> Any:
    """The file after the front."""
    model = compose.add_prefix(copy.deepcopy(file.model), _PREFIX)
    graph, inputs = model.graph, [item._replace(name=_PREFIX + item.name) for item in file.inputs]
    rows = 1 if any(item.shape and item.shape[0] == 1 for item in inputs) else None
    made, kept = front(inputs, contract, order), list(graph.node)
    constants = [value for value in graph.input if value.name not in {item.name for item in inputs}]  # old files name them as inputs
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*made, *kept])
    graph.input.extend([helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, [rows, len(order)]), *constants])
    if not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", _ONNX))
    return model


def _output(model: Any, name: str, width: int | None = None) -> None:
    """Makes one value the only output; without a width, of whatever type it is."""
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_empty_tensor_value_info(name)
        if width is None
        else helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
    )


def _answered(model: Any, file: ModelFile, contract: Contract, columns: int) -> Answered:
    """What the file answers, found out by asking it for a row of zeros. Raises TidemillError."""
    name, names = contract.output.name, [value.name for value in file.model.graph.output]
    if name not in names:
        raise TidemillError(f"the file has no output {name!r}", mend=f"name one of {', '.join(names)} in the contract")
    mapped = class_map(model, _PREFIX + name)
    tensor, classes = mapped or (_PREFIX + name, contract.classes)
    if mapped:
        kept = [node for node in model.graph.node if _PREFIX + name not in node.output]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        classes = _classes(contract, classes)
    _output(model, tensor)
    found = _asked(model, name, columns)
    check_width(contract, f"{name} {found.dtype} {list(found.shape)}", found.size)
    return Answered(tensor, found.size, classes, output_of(contract))


def _classes(contract: Contract, named: list[str]) -> list[str]:
    """The classes of an output that names them."""
    named = named_classes(named, contract)
    if contract.classes and set(named) != set(contract.classes):
        raise TidemillError(
            f"output {contract.output.name!r} is of the classes {', '.join(named)}, and the contract says {', '.join(contract.classes)}",
            mend="give the contract the classes of the file",
        )
    return named if contract.classes else []


def _asked(model: Any, name: str, columns: int) -> Any:
    """The file's answer to one row. Raises TidemillError when it has none, or one that is no array of numbers."""
    try:
        runner = OnnxRunner(name, model.SerializeToString())
        found = runner.run({FEATURES: np.zeros((1, columns), np.float32)}, [model.graph.output[0].name])[0]
    except ArtifactError as error:
        raise TidemillError(
            f"the file does not take what the contract gives it: {_first_line(error.__cause__)}", mend="correct inputs of the contract"
        ) from error
    except Exception as error:  # the exceptions of onnxruntime have no common root
        raise TidemillError(f"the file fails on a row of zeros: {_first_line(error)}", mend="correct inputs of the contract") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fi":
        kind = found.dtype.name if isinstance(found, np.ndarray) else type(found).__name__
        raise TidemillError(
            f"output {name!r} is {kind}, no array of numbers",
            mend="name another output of the file, or export it without maps (zipmap=False)",
        )
    return found


def _first_line(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
