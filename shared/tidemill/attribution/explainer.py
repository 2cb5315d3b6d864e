"""Explains the answers of one version by its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from tidemill.attribution.links import Scale
from tidemill.attribution.pooled import PooledRows
from tidemill.attribution.sampled import sampled_values
from tidemill.attribution.stored import Method, Recipe
from tidemill.attribution.trees import TreeShapley
from tidemill.models.engine import Engine
from tidemill.models.inputs import Vector
from tidemill.models.runner import OnnxRunner

Floats = npt.NDArray[np.float64]


class Attribution(msgspec.Struct, frozen=True):
    """From which inputs an answer came. `base`: the mean answer of the background; `answer`: this one, both on the `scale`; `contributions`:
    by input, the largest first; they add up to `answer - base`. `standard_error`: of each, where they were sampled; `of_class`: of several
    classes the one that was answered, whose probability is explained."""

    method: Method
    scale: Scale
    base: float
    answer: float
    contributions: dict[str, float]
    standard_error: dict[str, float] | None = None
    of_class: str | UnsetType = field(default=UNSET, name="class")


class Explainer:
    """Explains the answers of a version. `names`: of its inputs; `output`: what it answers. It takes a second or so to make for large
    forests, and has no state after that. Raises ArtifactError."""

    def __init__(self, names: Sequence[str], output: Scale, engine: Engine, recipe: Recipe) -> None:
        self.names, self.method = list(names), recipe.method
        self._engine, self._recipe, self._output = engine, recipe, output
        self._pools = PooledRows(engine, len(names), recipe.pools)
        self._front = OnnxRunner(f"what explains {engine.label}", recipe.front) if recipe.front else None
        self._trees: TreeShapley | None = None
        known = not engine.classes and not recipe.pools  # others are sampled
        self._size = float(np.abs(engine.predict_rows(recipe.background)).max()) if known else 0.0
        if recipe.method == "trees" and recipe.nodes is not None and recipe.owners is not None:
            columns = self._columns(recipe.background)
            self._still = np.flatnonzero(recipe.owners < 0)
            self._constants = columns[0, self._still]
            self._trees = TreeShapley(recipe.nodes, recipe.owners, columns, len(self.names))
        elif recipe.method == "additive":
            self._means = np.mean([self._terms(row) for row in recipe.background], axis=0)
            self._base = float(np.mean(self._margins(recipe.background)))

    def explain(self, vector: Vector, contents: Mapping[str, str] | None = None) -> Attribution:
        """From which inputs the answer to a row came. `contents`: as they are logged, by name."""
        if self._recipe.pools:
            places = [place for place, name in enumerate(self.names) if place in self._recipe.pools]
            return self._of_samples(*self._pools.with_row(vector, {place: (contents or {}).get(self.names[place]) for place in places}))
        exact = self._of_trees(vector) if self._trees else self._of_terms(vector) if self._recipe.method == "additive" else None
        return exact or self._of_samples(vector, self._engine)

    def _of_trees(self, vector: Vector) -> Attribution | None:
        assert self._trees is not None
        (columns,) = self._columns(vector.reshape(1, -1))
        if not np.array_equal(columns[self._still], self._constants, equal_nan=True):
            return None  # a column that never changed has changed: the recipe does not know of which input it is made
        return self._exact("trees", vector, self._trees.base, self._trees.values(columns))

    def _of_terms(self, vector: Vector) -> Attribution | None:
        return self._exact("additive", vector, self._base, self._terms(vector) - self._means)

    def _exact(self, method: Method, vector: Vector, base: float, values: Floats) -> Attribution | None:
        """None when the values do not add up to what was answered."""
        link = self._recipe.link
        margin, answer = np.array([base + values.sum()]), np.array([self._engine.predict(vector)])
        size = 0.0 if link.scale == "log" else max(self._size, float(np.abs(link.slope * values).sum()))
        if not link.near(margin, answer, size):
            return None
        return self._made(method, link.scale, float(link.on_scale(base)), link.slope * values)

    def _of_samples(self, vector: Vector, engine: Engine) -> Attribution:
        if not engine.classes:
            found = sampled_values(engine.predict_rows, vector, self._recipe.background)
            return self._made("sampled", self._output, found.base, found.values, found.errors)
        probabilities = engine.probabilities(vector)
        place = probabilities.index(max(probabilities))
        found = sampled_values(partial(engine.predict_rows, place=place), vector, self._recipe.background)
        made = self._made("sampled", "probability", found.base, found.values, found.errors)
        return replace(made, of_class=engine.classes[place])

    def _made(self, method: Method, scale: Scale, base: float, values: Floats, errors: Floats | None = None) -> Attribution:
        order = np.argsort(-np.abs(values), kind="stable").tolist()
        return Attribution(
            method,
            scale,
            base,
            base + float(values.sum()),
            {self.names[i]: float(values[i]) for i in order},
            None if errors is None else {self.names[i]: float(errors[i]) for i in order},
        )

    def _columns(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The columns of the trees."""
        return rows if self._front is None else _floats(self._front, rows)

    def _margins(self, rows: npt.NDArray[np.float32]) -> Floats:
        assert self._front is not None
        return _floats(self._front, rows).reshape(len(rows), -1)[:, self._recipe.column].astype(np.float64)

    def _terms(self, vector: Vector) -> Floats:
        """The margin when one input alone is that of the row, the others those of the first background row; for each input."""
        rows = np.repeat(self._recipe.background[:1], len(vector), axis=0)
        np.fill_diagonal(rows, vector)
        return self._margins(rows)


def _floats(runner: OnnxRunner, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    (found,) = runner.run({runner.inputs[0].name: rows})
    return np.asarray(found, np.float32)
