"""The front of the graph: from the one float32 matrix that every model gets to the inputs of a file, as its contract says.

Only operators that hardly changed since opset 9 are used, so that a file keeps its opset.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tidemill.training.imported.contract import Contract
from tidemill.training.imported.file import FileInput, array_type

FEATURES = "features"


class Nodes:
    """Collects nodes in order; each has one output, whose name it gives back."""

    def __init__(self, prefix: str) -> None:
        self.made = list[Any]()
        self._prefix = prefix

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node of an operator. Its output."""
        name = f"{self._prefix}{len(self.made)}"
        self.made.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: Any) -> str:
        """A constant array. Its name."""
        return self.add("Constant", value=numpy_helper.from_array(np.asarray(values)))

    def named(self, name: str, source: str) -> None:
        """Gives a value another name."""
        self.made.append(helper.make_node("Identity", [source], [name], name=f"{self._prefix}{len(self.made)}"))


def front(inputs: Sequence[FileInput], contract: Contract, order: Sequence[str]) -> list[Any]:
    """The nodes that make a file's inputs from the matrix. `order`: the declared inputs, as the columns of the matrix."""
    nodes = Nodes("front ")
    for item in inputs:
        made = _columns(nodes, item, contract, order)
        if item.kind not in (TensorProto.FLOAT, TensorProto.STRING):
            made = nodes.add("Cast", made, to=item.kind)
        nodes.named(item.name, nodes.add("Reshape", made, nodes.constant(np.array(item.lengths, np.int64))))
    return nodes.made


def _columns(nodes: Nodes, item: FileInput, contract: Contract, order: Sequence[str]) -> str:
    """The columns of an input: as blocks of neighbours, and one by one where a text has a number, or is a text, of its own."""
    parts = list[str]()
    for coded, names in groupby(item.columns, lambda name: item.kind == TensorProto.STRING or is_coded(name, contract)):
        if coded:
            parts += [_coded(nodes, name, item.kind, contract, order) for name in names]
        else:
            parts.append(_filled(nodes, list(names), contract, order))
    return parts[0] if len(parts) == 1 else nodes.add("Concat", *parts, axis=1)


def is_coded(name: str, contract: Contract) -> bool:
    """Whether the file takes another number for a text than its place in tidemill."""
    return name in contract.categories and contract.codes(name) != list(range(len(contract.texts(name))))


def _gathered(nodes: Nodes, names: Sequence[str], order: Sequence[str]) -> str:
    places = np.array([order.index(name) for name in names], np.int64)
    return nodes.add("Gather", FEATURES, nodes.constant(places), axis=1)


def _filled(nodes: Nodes, names: Sequence[str], contract: Contract, order: Sequence[str]) -> str:
    """Columns of the matrix, with what stands for a missing number."""
    block = _gathered(nodes, names, order)
    fills = [contract.missing_number(name) for name in names]
    if all(fill is None for fill in fills):
        return block
    row = np.array([[np.nan if fill is None else fill for fill in fills]], np.float32)
    return nodes.add("Where", nodes.add("IsNaN", block), nodes.constant(row), block)


def _coded(nodes: Nodes, name: str, kind: int, contract: Contract, order: Sequence[str]) -> str:
    """A column of texts, each as the file takes it."""
    table = table_of(name, kind, contract)
    count = np.float32(len(table) - 1)
    number = _gathered(nodes, [name], order)
    known = nodes.add(
        "And",
        nodes.add("Not", nodes.add("Less", number, nodes.constant(np.float32(0)))),
        nodes.add("Less", number, nodes.constant(count)),  # false of NaN
    )
    place = nodes.add("Cast", nodes.add("Where", known, number, nodes.constant(count)), to=TensorProto.INT64)
    return nodes.add("Gather", nodes.constant(table), place, axis=0)


def table_of(name: str, kind: int, contract: Contract) -> Any:
    """What a file takes for each text by its number in tidemill; the last one for a missing text."""
    if kind == TensorProto.STRING:
        unknown = [contract.unknown[name]] if name in contract.unknown else []
        return np.array([*contract.categories[name], *unknown, contract.missing[name]], array_type(kind))
    fill = contract.missing_number(name)
    return np.array([*contract.codes(name), np.nan if fill is None else fill], np.float32)
