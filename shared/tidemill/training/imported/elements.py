"""Tensors of a model whose file is from elsewhere: within the graph around it, and in what it is compared on, each element is a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tidemill.declarations import Model, Tensor
from tidemill.errors import BadRequest, TidemillError
from tidemill.models.artifact import ModelInput, inputs_of
from tidemill.models.contents import tensor, tensor_numbers
from tidemill.training.dataset import Floats
from tidemill.training.given_contents import element_names, plain


class Elements(NamedTuple):
    """`order`: the declared inputs, a tensor's elements in its place; `names`: the elements of each tensor; `shapes`: of each tensor."""

    order: list[str]
    names: Mapping[str, list[str]]
    shapes: Mapping[str, Sequence[int]]

    def rows(self, name: str, values: Sequence[Any]) -> Floats:
        """The elements of tensors as a request has them. Raises TidemillError."""
        try:
            return np.stack([tensor_numbers(tensor(name, self.shapes[name], value)) for value in values])
        except BadRequest as error:
            raise TidemillError(f"the examples: {error.message.removeprefix('entities.')}", mend=error.mend) from error


def elements_of(model: Model) -> Elements:
    """The columns of a model's inputs."""
    names = {spec.name: element_names(spec) for spec in inputs_of(model.plan, {}) if spec.kind == "tensor"}
    order = [one for name in model.input_names for one in names.get(name, [name])]
    return Elements(order, names, {request.name: request.shape for request in model.requests if isinstance(request, Tensor)})


def as_elements(inputs: Sequence[ModelInput], rows: Floats) -> Floats:
    """Rows of a training set with the elements of its tensors."""
    found: Floats = plain(inputs, rows) if any(spec.is_content for spec in inputs) else rows
    return found
