"""The tail of the graph: from the output of a file to the one output that every model has, as its contract says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto

from tidemill.errors import TidemillError
from tidemill.models.artifact import Output
from tidemill.training.imported.contract import Contract
from tidemill.training.imported.front import Nodes

SERVED = "served"
_CLASS_MAP = "ZipMap"


class Answered(NamedTuple):
    """What a file answers: the tensor that holds it, how many numbers a row has, the classes in their order (none of two), and what is
    served of it."""

    tensor: str
    width: int
    classes: list[str]
    output: Output

    @property
    def served_width(self) -> int:
        """How many numbers are served for a row."""
        return {"value": 1, "probability": 2, "probabilities": len(self.classes)}[self.output]


def output_of(contract: Contract) -> Output:
    """What is served by a contract."""
    if contract.output.gives == "value":
        return "value"
    return "probabilities" if contract.classes else "probability"


def class_map(model: Any, name: str) -> tuple[str, list[str]] | None:
    """The tensor of probabilities, and its classes in order, of an output that is a list of maps by class; None for any other output."""
    node = next((node for node in model.graph.node if name in node.output and node.op_type == _CLASS_MAP), None)
    if node is None:
        return None
    labels = {attribute.name: attribute for attribute in node.attribute}
    texts = [text.decode() for text in labels["classlabels_strings"].strings] if "classlabels_strings" in labels else []
    return node.input[0], texts or [str(number) for number in labels["classlabels_int64s"].ints]


def named_classes(keys: Sequence[str], contract: Contract) -> list[str]:
    """The classes of a file's keys. A classifier that was fitted on the places of its classes has 0, 1, 2 ... as keys."""
    as_places = sorted(keys) == sorted(str(place) for place in range(len(contract.classes)))
    return [contract.classes[int(key)] for key in keys] if as_places else list(keys)


def widths(contract: Contract) -> tuple[int, ...]:
    """How many numbers a row of the output may have."""
    gives = contract.output.gives
    if gives in ("probabilities", "logits"):
        return (len(contract.classes) or 2,)
    return (1, 2) if gives == "probability" else (1,)


def check_width(contract: Contract, described: str, width: int) -> None:
    """Raises TidemillError unless an output has as many numbers a row as the contract says."""
    if width not in widths(contract):
        wanted = " or ".join(map(str, widths(contract)))
        raise TidemillError(
            f"output {described} has {width} numbers a row, and {contract.output.gives!r} needs {wanted}",
            mend='correct "gives" or "classes" of the contract, or name another output',
        )


def tail(answered: Answered, contract: Contract, order: Sequence[str]) -> list[Any]:
    """The nodes from a file's output to what is served. `order`: the classes as they are served."""
    nodes, gives = Nodes("tail "), contract.output.gives
    made = nodes.add("Cast", answered.tensor, to=TensorProto.FLOAT)
    made = nodes.add("Reshape", made, nodes.constant(np.array([-1, answered.width], np.int64)))
    if gives == "logit":
        made = nodes.add("Sigmoid", made)
    elif gives == "logits":
        made = nodes.add("Softmax", made, axis=1)
    if gives != "value" and answered.width == 1:
        made = nodes.add("Concat", nodes.add("Sub", nodes.constant(np.float32(1)), made), made, axis=1)
    if list(order) != answered.classes:
        places = np.array([answered.classes.index(name) for name in order], np.int64)
        made = nodes.add("Gather", made, nodes.constant(places), axis=1)
    nodes.named(SERVED, made)
    return nodes.made
