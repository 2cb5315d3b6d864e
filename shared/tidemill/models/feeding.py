"""From a row of numbers and its contents to the arrays of a model's graph."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

import msgspec
import numpy as np

from tidemill.declarations.models import FEATURES
from tidemill.errors import ArtifactError
from tidemill.models.artifact import ModelInput
from tidemill.models.contents import Content, Contents, tensor_numbers
from tidemill.models.inputs import Vector
from tidemill.models.runner import Array, TensorSpec
from tidemill.models.terms import read_rules, terms_maker


class _Fed(NamedTuple):
    """An input that is a content: its place in the matrix, its name, and what makes the graph's array from the contents of some rows."""

    place: int
    name: str
    array: Callable[[Sequence[Content]], Array]


class Feed:
    """Makes the arrays that a graph takes: `features`, the numbers, if there are any, and one for each content, by its name.

    `inputs`: of the model; `specs`, `metadata`: of the graph. Raises ArtifactError when the graph takes something else.
    """

    def __init__(self, label: str, inputs: Sequence[ModelInput], specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> None:
        self.numbers = [i for i, item in enumerate(inputs) if not item.is_content]
        self._pools: dict[int, Sequence[Content]] | None = None
        try:
            makers = {name: terms_maker(rules) for name, rules in read_rules(metadata).items()}
        except (msgspec.DecodeError, re.error) as error:
            raise ArtifactError(f"the rules of terms of {label} cannot be read: {error}", mend="train it again") from error
        found = {spec.name: spec for spec in specs}
        wanted = {item.name: _expected(item) for item in inputs if item.is_content} | (
            {FEATURES: ("float32", (len(self.numbers),))} if self.numbers else {}
        )
        if found.keys() != wanted.keys() or any(not _fits(found[name], *one) for name, one in wanted.items()):
            told = ", ".join(f"{name} {kind} [any, {', '.join(map(str, shape)) or 'any'}]" for name, (kind, shape) in wanted.items())
            raise ArtifactError(f"{label} takes {', '.join(map(str, specs))}, not {told}", mend="train it again")
        self._fed = [_Fed(i, item.name, _maker(item, makers.get(item.name))) for i, item in enumerate(inputs) if item.is_content]

    def pooled(self, inputs: Sequence[ModelInput]) -> Self:
        """A feed for rows that have, for a content, its place among the `categories` of its input, as in a training set."""
        made = copy.copy(self)
        made._pools = {fed.place: inputs[fed.place].categories for fed in self._fed}
        return made

    def arrays(self, rows: Vector, contents: Sequence[Contents] = ()) -> dict[str, Array]:
        """The arrays for some rows. `contents`: of each row, unless the rows have places."""
        found: dict[str, Array] = {FEATURES: np.ascontiguousarray(rows[:, self.numbers])} if self.numbers else {}
        for k, fed in enumerate(self._fed):
            if self._pools is None:
                found[fed.name] = fed.array([of_row[k] for of_row in contents])
            else:
                known, inverse = np.unique(rows[:, fed.place], return_inverse=True)
                pool = self._pools[fed.place]
                found[fed.name] = fed.array([None if np.isnan(place) else pool[int(place)] for place in known])[inverse]
        return found


def _expected(item: ModelInput) -> tuple[str, tuple[int, ...]]:
    """The type of a content's array, and its shape after the rows; of a text any."""
    return ("object", ()) if item.kind == "words" else ("float32", tuple(item.lengths))


def _fits(spec: TensorSpec, kind: str, shape: tuple[int, ...]) -> bool:
    return spec.dtype == np.dtype(kind) and (not shape or spec.shape[1:] == shape)


def _maker(item: ModelInput, terms: Callable[[str], list[str]] | None) -> Callable[[Sequence[Content]], Array]:
    if item.kind == "tensor":
        shape = tuple(item.lengths)
        blank = np.zeros(shape, np.float32)
        return lambda contents: np.stack([blank if one is None else tensor_numbers(one).reshape(shape) for one in contents])
    if terms is None:
        return lambda contents: np.array([[one or ""] for one in contents], object)
    return lambda contents: _padded([terms(one or "") for one in contents])


def _padded(rows: Sequence[list[str]]) -> Array:
    """Terms as a matrix of texts: the rows that are shorter end with "", which is no term."""
    width = max(1, *map(len, rows))
    return np.array([row + [""] * (width - len(row)) for row in rows], object)
