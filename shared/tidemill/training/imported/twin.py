"""A file as its contract says, in numpy: what the graph around it is compared with. It shares no node with that graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from tidemill.models.runner import OnnxRunner
from tidemill.training.imported.contract import Contract
from tidemill.training.imported.file import FileInput, ModelFile, array_type
from tidemill.training.imported.tail import named_classes


class Twin:
    """Runs the file itself. `order`: the declared inputs, as the columns of a matrix; `classes`: as they are served, none of two."""

    def __init__(self, file: ModelFile, contract: Contract, order: Sequence[str], classes: Sequence[str]) -> None:
        self._runner = OnnxRunner("the file", file.model.SerializeToString())
        self._inputs, self._contract = file.inputs, contract
        self._order, self._classes = list(order), list(classes)

    def answers(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What should be served for each row: a number, or one for each class."""
        return np.array([self._answer(row) for row in matrix], np.float64)

    def _answer(self, row: npt.NDArray[np.float32]) -> Any:
        given = {item.name: self._given(item, row) for item in self._inputs}
        found: Any = self._runner.run(given, [self._contract.output.name])[0]
        names = self._contract.classes
        if isinstance(found, list):  # one map by class for each row
            by_name = dict(zip(named_classes([str(key) for key in found[0]], self._contract), found[0].values(), strict=True))
            numbers = np.array([by_name[name] for name in names] if names else list(by_name.values()), np.float64)
        else:
            numbers = np.asarray(found, np.float64).reshape(-1)
        numbers = _meant(self._contract.output.gives, numbers)
        return [numbers[names.index(name)] for name in self._classes] if names else numbers[-1]

    def _given(self, item: FileInput, row: npt.NDArray[np.float32]) -> Any:
        values = [self._value(name, row[self._order.index(name)], texts=item.kind == TensorProto.STRING) for name in item.columns]
        return np.array(values, object).astype(array_type(item.kind)).reshape([1, *item.lengths[1:]])

    def _value(self, name: str, number: np.float32, *, texts: bool) -> Any:
        contract = self._contract
        if np.isnan(number):
            return contract.missing.get(name, np.nan)
        if name not in contract.categories:
            return number
        known, place = contract.categories[name], int(number)
        if place == len(known):
            return contract.unknown[name]
        return list(known)[place] if texts else known[list(known)[place]] if isinstance(known, dict) else place


def _meant(gives: str, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The numbers of an output as they are served."""
    with np.errstate(over="ignore"):
        if gives == "logit":
            return np.asarray(1 / (1 + np.exp(-numbers)))
        if gives == "logits":
            powers = np.exp(numbers - numbers.max())
            return np.asarray(powers / powers.sum())
    return numbers
