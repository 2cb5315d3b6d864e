"""The input vector of a model: one float32 per input, from the features of its views and the values that come with a request.

Inference, training and replay all build vectors here, so that a model meets in production what it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.declarations import FeatureView, Model, Request
from tidemill.errors import BadRequest
from tidemill.kernel.keys import entity_key
from tidemill.kernel.served import Served

Vector = npt.NDArray[np.float32]

FLOAT32_MAX = float(np.finfo(np.float32).max)
_INT64 = range(-(1 << 63), 1 << 63)  # a larger number could be written to the log, but no reader would take it


class ModelInputs:
    """How a model's vector is made. `categories`: for each Request of type str its known values; a value's number is its place there.

    `given` is what a request gives by name: the entity of each view (None: no such entity) and the Request values (None: missing).
    """

    def __init__(self, model: Model, categories: Mapping[str, Sequence[str]]) -> None:
        self.names = model.input_names
        self.fields = model.request_fields
        self.views: list[tuple[FeatureView, str]] = [(view, view.key.name) for view in model.views]
        self._model = model.name
        order = {view.name: i for i, view in enumerate(model.views)}
        self.places: list[tuple[int, int]] = []
        """For each feature among the inputs, in order: the place of its view among `views`, and its place in the view."""
        for selection in model.selections:
            features = [feature.name for feature in selection.view.served]
            self.places += [(order[selection.view.name], features.index(name)) for name in selection.names]
        self._requests = [(request.name, _converter(request, categories.get(request.name, ()))) for request in model.requests]

    def keys(self, given: Mapping[str, Any]) -> list[bytes | None]:
        """The entity key of each of `views`, None where the request says there is none. Raises BadRequest naming the field."""
        keys: list[bytes | None] = []
        for _, name in self.views:
            value = self._get(given, name)
            if isinstance(value, int) and value not in _INT64:
                raise BadRequest(f"entities.{name}: a whole number beyond 64 bits")
            try:
                keys.append(None if value is None else entity_key(value))
            except TypeError as error:
                raise BadRequest(f"entities.{name}: {error}") from None
        return keys

    def row(self, served: Sequence[Served], given: Mapping[str, Any]) -> list[float]:
        """The inputs in order, NaN where there is none: `served` has the features of each of `views`.

        A feature beyond the range of float32 counts as missing. Raises BadRequest naming a Request value of a wrong type or size.
        """
        row = [served[view].values[feature] for view, feature in self.places]
        row = [value if -FLOAT32_MAX <= value <= FLOAT32_MAX else math.nan for value in row]
        for name, convert in self._requests:
            value = self._get(given, name)
            row.append(math.nan if value is None else convert(value))
        return row

    def _get(self, given: Mapping[str, Any], name: str) -> Any:
        try:
            return given[name]
        except KeyError:
            raise BadRequest(f"entities.{name} is missing", mend=f"model {self._model} needs {', '.join(self.fields)}") from None


def vector_of(row: Sequence[float | None]) -> Vector:
    """The float32 vector of inputs as built by `row` or as logged (None: NaN)."""
    return np.array([math.nan if value is None else value for value in row], np.float32)


def _converter(request: Request, categories: Sequence[str]) -> Callable[[Any], float]:
    """What turns a value of a Request into its number. It raises BadRequest for a wrong type."""
    numbers = {category: float(i) for i, category in enumerate(categories)}

    def wrong(value: object, wanted: str) -> BadRequest:
        return BadRequest(
            f"entities.{request.name}: {value!r:.80} is not {wanted}", mend="correct the value, or give null where it is not known"
        )

    def category(value: Any) -> float:
        if not isinstance(value, str):
            raise wrong(value, "text")
        return numbers.get(value, math.nan)

    def flag(value: Any) -> float:
        if not isinstance(value, bool):
            raise wrong(value, "true or false")
        return float(value)

    def number(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not -FLOAT32_MAX <= value <= FLOAT32_MAX:
            raise wrong(value, "a number that float32 can hold")
        if isinstance(value, int) and value not in _INT64:
            raise wrong(value, "a whole number of 64 bits")
        if request.type is int and value != int(value):
            raise wrong(value, "a whole number")
        return float(value)

    return {str: category, bool: flag}.get(request.type, number)
