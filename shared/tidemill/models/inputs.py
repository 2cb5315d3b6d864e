"""The input vector of a model: one float32 per input, from the features of its views and the values of a request.

Inference, training and replay all build vectors here, so a model gets the same inputs in production as in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.declarations import FeatureView, Model, Request, Tensor
from tidemill.declarations.models import FeatureInput, RequestInput
from tidemill.errors import BadRequest
from tidemill.kernel.keys import asked_key
from tidemill.kernel.served import Served
from tidemill.models.contents import Content, Contents, measure, tensor, words

Vector = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

UNKNOWN_CATEGORY = "UNKNOWN_CATEGORY"
UNKNOWN_TEXT = "\uffffunknown"
"""The last of the categories where a text that was not there in training has a number of its own; where it is not, such a text is NaN."""
_UNKNOWN = frozenset({"NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"})
FLOAT32_MAX = float(np.finfo(np.float32).max)
_INT64 = range(-(1 << 63), 1 << 63)  # a larger number could be written to the predictions topic, but no reader accepts it


class ModelInputs:
    """Makes a model's vector, in the order of its plan. `categories`: the known values of each input that is a text, a feature or a
    Request of type str, by its name; the number of a value is its place in that list (see UNKNOWN_TEXT for others).

    In a training set `categories` also has the contents of each input that the model takes whole; its number is the place in that list then.

    `given`: the values of a request by name: the entity of each view (None: no such entity) and the Request values (None: missing).
    """

    def __init__(self, model: Model, categories: Mapping[str, Sequence[str]]) -> None:
        self.plan = model.plan
        self.fields = model.request_fields
        self.views: list[tuple[FeatureView, tuple[str, ...]]] = [(view, view.key.names) for view in model.views]
        self._model = model.name
        features = [(i, column) for i, column in enumerate(model.plan) if isinstance(column, FeatureInput)]
        self._features = [(i, column.view, column.feature) for i, column in features if not column.text]
        self._texts = [(i, column.view, column.feature, _Numbers(categories.get(column.name, ()))) for i, column in features if column.text]
        self._read = [(column.name, column.view, column.feature) for _, column in features]
        self._known = {
            column.name: frozenset(_Numbers(categories.get(column.name, ()))) for column in model.requests if column.kind == "category"
        }
        self._requests = [
            (i, column.name, _converter(column.request, categories.get(column.name, ())))
            for i, column in enumerate(model.plan)
            if isinstance(column, RequestInput) and not column.request.is_content
        ]
        whole = [
            (i, column.request) for i, column in enumerate(model.plan) if isinstance(column, RequestInput) and column.request.is_content
        ]
        self._whole = [(i, request.name, content_of(request)) for i, request in whole]
        self._pools = [_Numbers(categories.get(request.name, ())) for _, request in whole]
        self._stands = [(i, request.kind) for i, request in whole]
        self.content_names = [request.name for _, request in whole]
        self.entity_fields = [name for name in model.request_fields if name not in self.content_names]

    def keys(self, given: Mapping[str, Any]) -> list[bytes | None]:
        """The entity key for each of `views`; None where the request has null. Raises BadRequest, which names the field."""
        keys: list[bytes | None] = []
        for _, names in self.views:
            values = [self._get(given, name) for name in names]
            for name, value in zip(names, values, strict=True):
                if isinstance(value, int) and value not in _INT64:
                    raise BadRequest(f"entities.{name}: a whole number beyond 64 bits")
            try:
                keys.append(asked_key(values))
            except TypeError as error:
                raise BadRequest(f"entities.{', '.join(names)}: {error}") from None
        return keys

    def contents(self, given: Mapping[str, Any]) -> Contents:
        """What the model takes whole, in the order of the plan. Raises BadRequest."""
        return [convert(self._get(given, name)) for _, name, convert in self._whole] if self._whole else ()

    def named(self, contents: Contents) -> dict[str, str]:
        """Contents by name, as a prediction is logged; without those that are missing."""
        return {name: one for name, one in zip(self.content_names, contents, strict=True) if one is not None} if contents else {}

    def unnamed(self, contents: Mapping[str, str]) -> Contents:
        """Logged contents in the order of the plan."""
        return [contents.get(name) for name in self.content_names]

    def row(self, served: Sequence[Served], given: Mapping[str, Any], contents: Contents = ()) -> list[float]:
        """The inputs in the order of the plan, NaN where there is no value. `served`: the features of each of `views`; `contents`: as `contents`
        gives them.

        A feature beyond the range of float32 counts as missing. Raises BadRequest for a Request value of a wrong type or size.
        """
        row = [math.nan] * len(self.plan)
        for i, view, feature in self._features:
            value = served[view].values[feature]
            if -FLOAT32_MAX <= value <= FLOAT32_MAX:
                row[i] = value
        for i, view, feature, numbers in self._texts:
            row[i] = numbers[served[view].value(feature)]
        for i, name, convert in self._requests:
            given_value = self._get(given, name)
            if given_value is not None:
                row[i] = convert(given_value)
        return self.standing(row, contents) if self._stands else row

    def with_contents(self, numbers: Vector, contents: Contents) -> Vector:
        """The row of some numbers, in the order of the plan, with those that stand for its contents."""
        row, left = [math.nan] * len(self.plan), iter(numbers.tolist())
        whole = {i for i, _ in self._stands}
        for i in range(len(row)):
            if i not in whole:
                row[i] = next(left)
        return vector_of(self.standing(row, contents))

    def standing(self, row: list[float], contents: Contents) -> list[float]:
        """The row with the numbers that stand for its contents."""
        for (i, kind), content in zip(self._stands, contents, strict=True):
            row[i] = measure(kind, content)
        return row

    def degraded(self, served: Sequence[Served], given: Mapping[str, Any]) -> dict[str, str]:
        """The inputs that cannot be known, each with the reason: a feature with the status that says so, a category that was not there in
        training. A mean over no events (NULL_VALUE) is known: there is none."""
        found: dict[str, str] = {}
        for name, view, feature in self._read:
            status = served[view].statuses[feature]
            if status in _UNKNOWN:
                found[name] = status
        for i, view, feature, numbers in self._texts:
            if isinstance(text := served[view].value(feature), str) and text not in numbers:
                found[self.plan[i].name] = UNKNOWN_CATEGORY
        for name, known in self._known.items():
            value = given[name]
            if value is not None and value not in known:
                found[name] = UNKNOWN_CATEGORY
        return found

    def ignored(self, given: Mapping[str, Any]) -> list[str]:
        """The values of a request that the model does not take."""
        return [] if len(given) == len(self.fields) else [name for name in given if name not in self.fields]

    def rows(self, served: Sequence[npt.NDArray[Any]], given: Mapping[str, Sequence[Any]]) -> tuple[Values, dict[int, BadRequest]]:
        """`row` for many requests at once, before features beyond float32 count as missing (see `within_float32`): shape (requests, inputs).
        Also the requests that `row` refuses, and why.

        `served`: for each of `views`, the values of its features, shape (requests, features), texts as such; `given`: the Request values by name.
        """
        count = len(served[0]) if served else len(next(iter(given.values())))
        made, refused = np.full((count, len(self.plan)), math.nan), dict[int, BadRequest]()
        for i, view, feature in self._features:
            made[:, i] = served[view][:, feature]
        for i, view, feature, numbers in self._texts:
            made[:, i] = [numbers[value] for value in served[view][:, feature]]
        for i, name, convert in self._requests:
            for place, value in enumerate(given[name]):
                if value is not None:
                    try:
                        made[place, i] = convert(value)
                    except BadRequest as error:
                        refused.setdefault(place, error)
        for (i, name, content), pool in zip(self._whole, self._pools, strict=True):
            for place, value in enumerate(given[name]):
                try:
                    made[place, i] = pool[content(value)]
                except BadRequest as error:
                    refused.setdefault(place, error)
        return made, refused

    def _get(self, given: Mapping[str, Any], name: str) -> Any:
        try:
            return given[name]
        except KeyError:
            raise BadRequest(f"entities.{name} is missing", mend=f"model {self._model} needs {', '.join(self.fields)}") from None


def content_of(request: Request) -> Callable[[Any], Content]:
    """A function that gives the content of a value of a request. It raises BadRequest."""
    if isinstance(request, Tensor):
        return partial(tensor, request.name, tuple(request.shape))
    return lambda value: None if value is None else words(request.name, value)


def within_float32(values: Values | Vector) -> Vector:
    """Values as float32; one beyond its range counts as missing."""
    return np.where(np.abs(values) <= FLOAT32_MAX, values, math.nan).astype(np.float32)


def vector_of(row: Sequence[float | None]) -> Vector:
    """The float32 vector of the inputs that `row` made or that a prediction record has (None: NaN)."""
    return np.array([math.nan if value is None else value for value in row], np.float32)


def numbers_of(categories: Sequence[str]) -> Mapping[Any, float]:
    """The number of any text, by the categories of an input; NaN for what is no text."""
    return _Numbers(categories)


class _Numbers(dict[Any, float]):
    """The number of each known text. Any other text has that of UNKNOWN_TEXT, or NaN where this is not among the categories; no text is NaN."""

    def __init__(self, categories: Sequence[str]) -> None:
        super().__init__({category: float(i) for i, category in enumerate(categories)})
        self._unknown = self.pop(UNKNOWN_TEXT, math.nan)

    def __missing__(self, value: object) -> float:
        return self._unknown if isinstance(value, str) else math.nan


def _converter(request: Request, categories: Sequence[str]) -> Callable[[Any], float]:
    """A function that turns a value of a Request into its number. It raises BadRequest for a wrong type."""
    numbers = _Numbers(categories)

    def wrong(value: object, wanted: str) -> BadRequest:
        return BadRequest(
            f"entities.{request.name}: {value!r:.80} is not {wanted}", mend="correct the value, or give null where it is not known"
        )

    def category(value: Any) -> float:
        if not isinstance(value, str):
            raise wrong(value, "text")
        return numbers[value]

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
