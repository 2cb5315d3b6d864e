"""Rows that requests will bring, whether or not a training set has such rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tidemill.declarations import Model
from tidemill.models.artifact import ModelInput
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.training.dataset import Floats
from tidemill.training.given_contents import strange_places

MISSING_ROWS = 100
BEYOND_ROWS = 20
BEYOND = 10.0


class Probe(NamedTuple):
    """Rows to compare, and a text that describes them: "with input 'x' missing"."""

    what: str
    rows: Floats


def probes(model: Model, inputs: Sequence[ModelInput], matrix: Floats) -> Iterator[Probe]:
    """Each row is a row of `matrix` with a change:

    - one input missing; a text never seen (for a pipeline that gets a matrix it looks the same);
    - all features of a view missing, as for an unknown entity;
    - all inputs missing;
    - a number at its smallest or largest value, or ten times its range beyond;
    - a text or a tensor as no training set has it (see `given_contents`).
    """
    base = spread(matrix, MISSING_ROWS)
    for i, spec in enumerate(inputs):
        if spec.is_content:
            yield from _strange(i, spec, base)
        if spec.kind == "tensor":  # it is never missing
            continue
        apart = UNKNOWN_TEXT in spec.categories
        never_seen = " or never seen" if spec.is_category and not apart else ""
        yield Probe(f"with input {spec.name!r} missing{never_seen}", _with(base, [i], np.nan))
        if apart:
            yield Probe(f"with input {spec.name!r} never seen", _with(base, [i], spec.categories.index(UNKNOWN_TEXT)))
    for view in model.views:
        mine = [i for i, spec in enumerate(inputs) if spec.is_feature and spec.name.startswith(f"{view.name}__")]
        yield Probe(f"of an entity that view {view.name!r} does not know", _with(base, mine, np.nan))
    missing = [i for i, spec in enumerate(inputs) if spec.kind != "tensor"]
    yield Probe("with all inputs missing", _with(base[:1], missing, np.nan))
    flags = {request.name for request in model.requests if request.type is bool}
    base = spread(matrix, BEYOND_ROWS)
    for i, spec in enumerate(inputs):
        if not spec.has_texts:
            values = [0.0, 1.0] if spec.name in flags else _ends(matrix[:, i])
            yield Probe(f"with input {spec.name!r} from {values[0]:g} to {values[-1]:g}", np.vstack([_with(base, [i], v) for v in values]))


def _strange(i: int, spec: ModelInput, base: Floats) -> Iterator[Probe]:
    places = strange_places(spec)
    rows = base[np.arange(len(places)) % len(base)].copy()
    rows[:, i] = places
    yield Probe(f"with strange {'texts' if spec.kind == 'words' else 'numbers'} in input {spec.name!r}", rows)


def spread(matrix: Floats, count: int) -> Floats:
    """Up to `count` rows, evenly spread over the matrix."""
    return matrix[:: max(1, len(matrix) // count)][:count]


def _ends(column: Floats) -> list[float]:
    """The smallest and largest value of a number, and values ten times their distance beyond; a number that is never negative stays so."""
    seen = column[~np.isnan(column)].astype(np.float64)
    least, most = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    away = BEYOND * max(most - least, 1.0)
    limit = float(np.finfo(np.float32).max)
    below = [max(least - away, -limit)] if least < 0 else []
    return [*below, least, most, min(most + away, limit)]


def _with(rows: Floats, columns: list[int], value: float) -> Floats:
    """A copy with other values in some columns."""
    changed = rows.copy()
    changed[:, columns] = value
    return changed
