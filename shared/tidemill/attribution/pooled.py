"""Rows whose contents are places in pools, so that a request's content stands beside those of the background."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tidemill.models.artifact import ModelInput
from tidemill.models.contents import Content
from tidemill.models.engine import Engine
from tidemill.models.inputs import Vector


class Placed(NamedTuple):
    """A row with places, and the engine that knows the contents of these places and of the background's."""

    vector: Vector
    engine: Engine


class PooledRows:
    """`pools`: the contents of the background, by the place of their input among so many `inputs`."""

    def __init__(self, engine: Engine, inputs: int, pools: Mapping[int, Sequence[str]]) -> None:
        self._engine, self._inputs, self._pools = engine, inputs, pools

    def with_row(self, vector: Vector, contents: Mapping[int, Content]) -> Placed:
        """A served row. `contents`: those of its inputs that are contents, by their place."""
        placed, specs = vector.copy(), [ModelInput("", "number") for _ in range(self._inputs)]
        for place, pool in self._pools.items():
            content = contents[place]
            placed[place] = math.nan if content is None else len(pool)
            specs[place] = ModelInput("", "words", [*pool, content or ""])
        return Placed(placed, self._engine.pooled(specs))


def background_of(rows: Vector, inputs: Sequence[ModelInput]) -> tuple[Vector, dict[int, list[str]]]:
    """Rows of a training set as a background: its contents alone, and their places among these."""
    made, pools = rows.copy(), dict[int, list[str]]()
    for i, spec in enumerate(inputs):
        if spec.is_content:
            there = ~np.isnan(made[:, i])
            known, made[there, i] = np.unique(made[there, i], return_inverse=True)
            pools[i] = [spec.categories[int(place)] for place in known]
    return made, pools
