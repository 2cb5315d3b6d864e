"""The values of trees are those of the definition, for all conditions that ONNX has, missing values, and inputs spread over columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attribution.oracle import shapley

from tidemill.attribution.trees import MODES, TreeNodes, TreeShapley

INPUTS = 4
FEW = [-1.0, 0.0, 0.5, 1.0, math.nan]


def random_trees(draw: np.random.Generator, trees: int, depth: int, columns: int) -> TreeNodes:
    """Trees of any shape, whose conditions compare with few numbers, so that rows often lie on a threshold."""
    rows: list[tuple[int, int, float, bool, int, int, float]] = []

    def grow(left: int) -> int:
        place = len(rows)
        rows.append((0, 0, 0.0, False, 0, 0, float(draw.normal())))
        if left and draw.random() < 0.8:
            mode, column, threshold = int(draw.integers(1, len(MODES))), int(draw.integers(columns)), float(draw.choice(FEW[:4]))
            rows[place] = (mode, column, threshold, bool(draw.integers(2)), grow(left - 1), grow(left - 1), 0.0)
        return place

    roots = [grow(depth) for _ in range(trees)]
    modes, places, thresholds, missing, yes, no, values = (np.array(column) for column in zip(*rows, strict=True))
    return TreeNodes(
        modes.astype(np.int8), places, thresholds.astype(np.float32), missing, yes, no, values.astype(np.float64), np.array(roots), 0.25
    )


def walked(nodes: TreeNodes, columns: np.ndarray) -> float:
    """What trees give for a row, node by node."""
    whole = nodes.start
    compare = {
        "BRANCH_LEQ": np.less_equal, "BRANCH_LT": np.less, "BRANCH_GTE": np.greater_equal, "BRANCH_GT": np.greater,
        "BRANCH_EQ": np.equal, "BRANCH_NEQ": np.not_equal,
    }  # fmt: skip
    for root in nodes.roots:
        node = int(root)
        while MODES[nodes.modes[node]] != "LEAF":
            value = columns[nodes.columns[node]]
            true = bool(nodes.missing[node]) if np.isnan(value) else bool(compare[MODES[nodes.modes[node]]](value, nodes.thresholds[node]))
            node = int(nodes.yes[node] if true else nodes.no[node])
        whole += float(nodes.values[node])
    return whole


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 4), st.integers(0, 4), st.integers(1, 5))
def test_values_are_those_of_the_definition(seed: int, trees: int, depth: int, background: int) -> None:
    """Of inputs that are one column each, of some that are several, and of one that is none."""
    draw = np.random.default_rng(seed)
    owners = np.array([0, 1, 1, 2, 3, -1])[: int(draw.integers(4, 7))]
    nodes = random_trees(draw, trees, depth, len(owners))
    spread_out = np.maximum(owners, 0)

    def columns(rows: np.ndarray) -> np.ndarray:
        """An input's columns are its number, and others made of it; the column of none is 0."""
        made = rows[:, spread_out] * np.array([1, 1, -1, 1, 1, 0])[: len(owners)]
        made[:, owners < 0] = 0
        return np.asarray(made, np.float32)

    rows = draw.choice(FEW, (background + 1, INPUTS)).astype(np.float32)
    explained = TreeShapley(nodes, owners, columns(rows[1:]), INPUTS)
    base, values = shapley(lambda some: np.array([walked(nodes, row) for row in columns(some)]), rows[0], rows[1:])
    (of_row,) = columns(rows[:1])
    assert explained.margin(of_row) == pytest.approx(walked(nodes, of_row), abs=1e-12)
    assert explained.base == pytest.approx(base, abs=1e-12)
    assert explained.values(of_row) == pytest.approx(values, abs=1e-12)


def chain(length: int) -> TreeNodes:
    """One tree with a path of so many conditions, each on another column."""
    branches = range(length)
    modes = np.array([1] * length + [0] * (length + 1), np.int8)
    nothing = [0] * (length + 1)
    yes, no = [*range(1, length), length, *nothing], [*(length + 1 + i for i in branches), *nothing]
    values = np.zeros(len(modes))
    values[length] = 3.0
    return TreeNodes(
        modes, np.array([*branches, *nothing]), np.zeros(len(modes), np.float32), np.zeros(len(modes), bool), np.array(yes), np.array(no),
        values, np.array([0]),
    )  # fmt: skip


@pytest.mark.parametrize("length", [20, 40, 62])
def test_long_paths(length: int) -> None:
    """An answer that all inputs of a path make together is shared among them alike, however many they are."""
    explained = TreeShapley(chain(length), np.arange(length), np.ones((1, length), np.float32), length)
    assert explained.values(np.zeros(length, np.float32)) == pytest.approx([3 / length] * length)
    assert explained.values(np.ones(length, np.float32)).tolist() == [0] * length


def test_too_long_a_path_is_refused() -> None:
    """Beyond 62 inputs on a path there are no bits for them."""
    with pytest.raises(ValueError, match="conditions on 63 inputs"):
        TreeShapley(chain(63), np.arange(63), np.ones((1, 63), np.float32), 63)
