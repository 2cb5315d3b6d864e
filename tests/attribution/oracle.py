"""Shapley values by their definition: over every set of inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np

Margins = Callable[[np.ndarray], np.ndarray]


def shapley(margins: Margins, row: np.ndarray, background: np.ndarray) -> tuple[float, np.ndarray]:
    """The worth of no input, and the value of each. `margins`: the number that rows of inputs are worth."""
    inputs = len(row)
    sets = [frozenset(chosen) for size in range(inputs + 1) for chosen in combinations(range(inputs), size)]
    held = np.array([[i in chosen for i in range(inputs)] for chosen in sets])
    rows = np.where(held[:, None, :], row, background[None]).reshape(-1, inputs).astype(np.float32)
    worths = dict(zip(sets, np.asarray(margins(rows), np.float64).reshape(len(sets), len(background)).mean(axis=1), strict=True))
    values = np.zeros(inputs)
    for chosen in sets:
        for i in range(inputs):
            if i not in chosen:
                weight = math.factorial(len(chosen)) * math.factorial(inputs - len(chosen) - 1) / math.factorial(inputs)
                values[i] += weight * (worths[chosen | {i}] - worths[chosen])
    return float(worths[frozenset()]), values
