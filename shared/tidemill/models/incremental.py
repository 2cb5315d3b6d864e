"""A pipeline that learns row by row, as river makes them, in the place of one that was fitted: it is asked with rows of a matrix, and gives numbers.

The pipeline sees a row as a dict of named values: numbers, and texts as texts. What is missing is not in it, nor a text that was not there in training.
Nothing here needs river: a pickle brings what it is made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.models.artifact import ModelInput
from tidemill.models.inputs import UNKNOWN_TEXT

Rows = npt.NDArray[np.float32]
Named = dict[str, float | str]
"""A row as the pipeline sees it."""


class NamedColumn(NamedTuple):
    """An input. `texts`: of a category, in the order of their numbers; None of a number."""

    name: str
    texts: tuple[str, ...] | None = None

    def value(self, number: float | None) -> float | str | None:
        """What a number of a row stands for; None where there is no value."""
        if number is None or math.isnan(number):
            return None
        if self.texts is None:
            return number
        text = self.texts[int(number)] if 0 <= number < len(self.texts) else UNKNOWN_TEXT
        return None if text == UNKNOWN_TEXT else text


def columns_of(inputs: Sequence[ModelInput]) -> tuple[NamedColumn, ...]:
    """The inputs of a version as its pipeline names them."""
    return tuple(NamedColumn(item.name, tuple(item.categories) if item.is_category else None) for item in inputs)


def named(columns: Sequence[NamedColumn], row: Sequence[float | None]) -> Named:
    """A row by the names of its inputs, without those that are missing."""
    found: Named = {}
    for column, number in zip(columns, row, strict=True):
        value = column.value(number)
        if value is not None:
            found[column.name] = value
    return found


class Incremental:
    """`pipeline`: has `learn_one`, and `predict_proba_one` or `predict_one`; `columns`: its inputs; `classes`: how many a classifier has, 0 of a regressor.

    Of two classes the pipeline learns False and True, of more the place of the class.
    """

    def __init__(self, pipeline: Any, columns: Sequence[NamedColumn], classes: int) -> None:
        self.pipeline, self.columns, self.classes = pipeline, tuple(columns), classes
        self._labels: list[int | bool] = [False, True] if classes == 2 else list(range(classes))

    def known(self, row: Mapping[str, float | str]) -> Named:
        """Of a row by names what this pipeline could be asked with: its own inputs, and texts that it knows."""
        found: Named = {}
        for column in self.columns:
            value = row.get(column.name)
            if value is not None and (column.texts is None) != isinstance(value, str) and (column.texts is None or value in column.texts):
                found[column.name] = value
        return found

    def answer(self, row: Named) -> list[float]:
        """The probability of each class, or the value alone. Raises what the pipeline raises."""
        if not self.classes:
            value = self.pipeline.predict_one(row)
            return [0.0 if value is None else float(value)]
        given = self.pipeline.predict_proba_one(row)
        found = [float(given.get(label, 0.0)) for label in self._labels]
        return found if sum(found) else [1 / self.classes] * self.classes  # it has learned nothing yet

    def learn(self, row: Named, label: float) -> None:
        """Learns one outcome: 0 or 1, the place of a class, or a value. Raises what the pipeline raises."""
        self.pipeline.learn_one(row, self._labels[int(label)] if self.classes else float(label))

    def predict_proba(self, rows: Rows) -> Rows:
        """The probabilities of many rows, each by itself; shape (rows, classes)."""
        return np.array([self.answer(self._named(row)) for row in rows], np.float32).reshape(len(rows), self.classes)

    def predict(self, rows: Rows) -> npt.NDArray[np.float64]:
        """The values of many rows, each by itself, or the places of their most probable classes."""
        answers = [self.answer(self._named(row)) for row in rows]
        return np.array([max(range(self.classes), key=found.__getitem__) if self.classes else found[0] for found in answers], np.float64)

    def _named(self, row: Rows) -> Named:
        return named(self.columns, row.tolist())
