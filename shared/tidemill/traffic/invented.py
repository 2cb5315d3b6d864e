"""Values that are invented from a declaration: what kind of field it is decides how."""

from __future__ import annotations

import ast
import math
import random
from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np

from tidemill.declarations import Event, Model
from tidemill.declarations.contents import Tensor, Words
from tidemill.declarations.project import Project

Row = dict[str, Any]
"""The fields of an event by their names."""

_SYLLABLES = ("ba", "do", "fe", "gu", "ki", "lo", "ma", "ni", "po", "ra", "se", "ti", "vu", "wa", "zo")
_NULL = 0.02  # share of nulls where there may be some
_NORMAL = NormalDist()


class Invention:
    """Invents rows of the events of a project. `entities`: how many different keys each view has."""

    def __init__(self, project: Project, seed: int, entities: int = 20) -> None:
        self._project, self._seed, self._entities = project, seed, entities
        self._laws: dict[tuple[str, str], tuple[float, float]] = {}

    @cached_property
    def _keys(self) -> set[str]:
        """The names of all fields that name entities."""
        return {field for view in self._project.views.values() for field in (*view.key.fields, *view.key.names)}

    @cached_property
    def _contents(self) -> dict[tuple[str, str], Words | Tensor]:
        """(event, field) -> what a model takes whole."""
        return {
            (model.on.name, request.name): request
            for model in self._project.models.values()
            for request in model.requests
            if isinstance(request, Words | Tensor)
        }

    @cached_property
    def _constants(self) -> dict[tuple[str, str], list[Any]]:
        """(event, field) -> what conditions compare the field with, so that both of their sides come up."""
        found: dict[tuple[str, str], list[Any]] = {}
        for event, text in _expressions(self._project):
            for name, constant in _compared(text):
                found.setdefault((event.name, name), []).append(constant)
        return found

    def row(self, event: Event, draw: random.Random, push: float = 0.0, moved: tuple[str, ...] = ()) -> Row:
        """A row but for its time and id. `moved`: fields of an outcome, which follow `push`, a number like a standard normal one."""
        return {name: self._value(event, name, draw, push if name in moved else None) for name in event.fields}

    def push(self, model: Model, row: Mapping[str, Any]) -> float:
        """What a row of the asking event says of its outcome: a hidden weight of each value that a request gives, so that there is something to learn."""
        found = 0.0
        for name in model.request_fields:
            value = row.get(name)
            key = random.Random(f"{self._seed}:{model.name}:{name}:{value if isinstance(value, str | bool) else ''}")
            weight = key.gauss(0, 1)
            found += weight * (
                self._standing(model.on, name, value) if isinstance(value, int | float) and not isinstance(value, bool) else 1.0
            )
        return found / max(math.sqrt(len(model.request_fields)), 1.0)

    def unseen(self, value: str, draw: random.Random) -> str:
        """A text that never came up."""
        return f"new{draw.randrange(3)}_{value}"[:200]

    def _standing(self, event: Event, name: str, value: float) -> float:
        middle, spread = self._law(event, name)
        return max(-3.0, min((value - middle) / spread, 3.0))

    def _law(self, event: Event, name: str) -> tuple[float, float]:
        """Mean and standard deviation of a number."""
        found = self._laws.get((event.name, name))
        if found is None:
            found = self._laws[event.name, name] = self._law_of(event, name)
        return found

    def _law_of(self, event: Event, name: str) -> tuple[float, float]:
        limits = [one for one in self._constants.get((event.name, name), []) if isinstance(one, int | float)]
        middle = float(np.median(limits)) if limits else 10.0
        return middle, max(abs(middle) / 2, 1.0)

    def _value(self, event: Event, name: str, draw: random.Random, push: float | None) -> Any:
        if event.nullable(name) and name not in self._keys and push is None and draw.random() < _NULL:
            return None
        kind, content = event.base_type(name), self._contents.get((event.name, name))
        if isinstance(content, Tensor):
            return b64encode(np.array([draw.random() for _ in range(math.prod(content.shape))], "<f4").tobytes()).decode()
        if isinstance(content, Words):
            return " ".join(draw.choice(self._vocabulary) for _ in range(draw.randrange(3, 12)))
        if name in self._keys:
            number = min(draw.randrange(self._entities), draw.randrange(self._entities))  # some come often
            return number if kind is int else f"{name}{number}" if kind is str else float(number)
        along = draw.gauss(0, 1) if push is None else 0.9 * push + 0.5 * draw.gauss(0, 1)
        if kind is bool:
            return along > 0
        if kind is str:
            texts = self._categories(event, name)
            return texts[min(int(_NORMAL.cdf(along) * len(texts)), len(texts) - 1)]
        classes = self._classes(event, name)
        if kind is int and classes:
            return classes[min(int(_NORMAL.cdf(along) * len(classes)), len(classes) - 1)]
        middle, spread = self._law(event, name)
        return round(middle + spread * along) if kind is int else round(middle + spread * along, 3)

    @cached_property
    def _vocabulary(self) -> list[str]:
        draw = random.Random(f"{self._seed}:words")
        return ["".join(draw.choice(_SYLLABLES) for _ in range(draw.randrange(1, 4))) for _ in range(200)]

    def _classes(self, event: Event, name: str) -> list[Any]:
        """The declared classes of an outcome."""
        return [
            one
            for model in self._project.models.values()
            if model.outcome.source is event and model.outcome.value == name
            for one in model.outcome.classes
        ]

    def _categories(self, event: Event, name: str) -> list[str]:
        named = [one for one in self._constants.get((event.name, name), []) if isinstance(one, str)]
        return [str(one) for one in self._classes(event, name)] or list(dict.fromkeys([*named, *(f"{name}_{letter}" for letter in "abcd")]))


def _expressions(project: Project) -> Iterator[tuple[Event, str]]:
    for view in project.views.values():
        yield from ((view.source, text) for text in (view.where, view.erase) if text)
        yield from ((view.source, feature.aggregation.column) for feature in view.served if feature.aggregation.column)
    for model in project.models.values():
        yield model.outcome.source, model.outcome.value


def _compared(text: str) -> Iterator[tuple[str, Any]]:
    """(field, constant) of each comparison of a condition; numbers and texts alone."""
    for node in ast.walk(ast.parse(text, mode="eval")):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        names = [part.id for side in sides for part in ast.walk(side) if isinstance(part, ast.Name)]
        for part in (part for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant)):
            if isinstance(part.value, int | float | str) and not isinstance(part.value, bool):
                yield from ((name, part.value) for name in names)
