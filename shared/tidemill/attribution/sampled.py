"""Shapley values of any model, by sampling: inputs of a background row are replaced by those of the request one after the other, in a random
order and in its reverse, and the change of the answer at each step counts for the input. Every background row has its turn, so the values add up exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.models.inputs import Vector

Floats = npt.NDArray[np.float64]
Answers = Callable[[npt.NDArray[np.float32]], Floats]
"""The answers of a model to rows of inputs."""


class Sampled(NamedTuple):
    """The values, the standard error of each, and the mean answer of the background."""

    values: Floats
    errors: Floats
    base: float


def sampled_values(answers: Answers, vector: Vector, background: npt.NDArray[np.float32]) -> Sampled:
    """The values of a row; the same every time, since the orders are drawn by the row itself. The errors are too large rather than too small: they
    take the background rows, all of which had their turn, for a sample."""
    count, inputs = background.shape
    draw = np.random.default_rng(zlib.crc32(vector.tobytes()))
    orders = np.array([draw.permutation(inputs) for _ in range(count)])
    both = np.stack([orders, orders[:, ::-1]], axis=1)  # (rows, 2, inputs)
    place = np.argsort(both, axis=2)
    taken = place[:, :, None, :] < np.arange(inputs + 1)[None, None, :, None]  # (rows, 2, steps, inputs)
    rows = np.where(taken, vector, background[:, None, None, :]).reshape(-1, inputs).astype(np.float32)
    found = answers(rows).reshape(count, 2, inputs + 1)
    steps = np.take_along_axis(np.diff(found, axis=2), place, axis=2).mean(axis=1)
    errors = steps.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(inputs, np.nan)
    return Sampled(steps.mean(axis=0), errors, float(found[:, 0, 0].mean()))
