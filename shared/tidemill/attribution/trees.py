"""Shapley values of trees, exact: of every set of inputs, by arithmetic over leaves instead of over sets.

A row that takes some inputs from the request (x) and the others from a background row (z) reaches a leaf when each input on its path passes
there. Where x fails at the inputs X and z at the inputs Z, and no input is in both, just the sets that hold all of Z and none of X reach it. So the leaf adds
v (|Z|-1)! |X|! / (|Z|+|X|)! to each input in Z, and takes v |Z|! (|X|-1)! / (|Z|+|X|)! from each in X. X and Z are bits: background rows with the
same bits at a leaf are one row with their weight.

An input that a pipeline spreads over several columns (a category) is one input: all conditions on its columns share its bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

MODES = ("LEAF", "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
MOST_BITS = 62


@dataclass(frozen=True)
class TreeNodes:
    """All nodes of an ensemble, as ONNX has them. `modes`: places in MODES; `columns`, `thresholds`: what a branch compares, in float32;
    `missing`: whether NaN makes its condition true; `yes`, `no`: the nodes that follow; `values`: of leaves; `roots`: one of each tree;
    `start`: what is added to the sum of the leaves."""

    modes: npt.NDArray[np.int8]
    columns: Places
    thresholds: Floats32
    missing: npt.NDArray[np.bool_]
    yes: Places
    no: Places
    values: Floats64
    roots: Places
    start: float = 0.0

    def decide(self, columns: Floats32) -> npt.NDArray[np.bool_]:
        """Whether the condition of each node is true of a row of columns, as onnxruntime decides."""
        values, limits = columns[self.columns], self.thresholds
        found = np.zeros(len(limits), bool)
        for mode, compared in enumerate(
            (None, values <= limits, values < limits, values >= limits, values > limits, values == limits, values != limits)
        ):
            if compared is not None:
                np.copyto(found, compared, where=self.modes == mode)
        found[np.isnan(values)] = False
        return found | (self.missing & np.isnan(values))


class _Paths(NamedTuple):
    """The conditions on the way to each leaf that a row can reach, leaf after leaf: the node, whether its condition must be true, the bit of its
    input at this leaf. `starts`: where each leaf's begin; `inputs`: shape (leaves, bits), the input of each bit, -1 where there is none; `values`: of the leaves;
    `always`: the sum of the leaves that every row reaches."""

    nodes: Places
    wanted: npt.NDArray[np.bool_]
    bits: npt.NDArray[Any]
    starts: Places
    inputs: Places
    values: Floats64
    always: float


class _Group(NamedTuple):
    """Different bits at leaves, all of as many inputs: from `start` on among all. `inputs`: shape (bits, needed)."""

    start: int
    inputs: npt.NDArray[np.int32]


class TreeShapley:
    """Explains trees against background rows. `owners`: for each column of the trees the input that it is made of, -1 for a column that
    never changes; `background`: rows of columns.

    Raises ValueError when a path has conditions on more than 62 inputs.
    """

    def __init__(self, nodes: TreeNodes, owners: Places, background: Floats32, inputs: int) -> None:
        self._nodes, self._inputs = nodes, inputs
        self._paths = paths = _paths_of(nodes, owners, nodes.decide(background[0]))
        self._some = len(paths.starts) > 0
        failed = np.array([self._failed(row) for row in background])
        self.base = float(np.mean([self._sum(row) for row in failed]))
        if not self._some:
            return
        self._weights = _weights()
        self._of_leaf, self._masks, shares = _distinct(failed)
        needed = np.bitwise_count(self._masks)
        order = np.argsort(needed, kind="stable")
        self._of_leaf, self._masks, needed = self._of_leaf[order], self._masks[order], needed[order]
        self._amounts = shares[order] * paths.values[self._of_leaf]
        self._row_of_weights = needed.astype(np.int32) * len(self._weights)
        self._groups = _groups(needed, self._masks, self._of_leaf, paths.inputs)
        self._bit_leaf, places = np.nonzero(paths.inputs >= 0)
        self._bit = (np.uint64(1) << places.astype(np.uint64)).astype(paths.bits.dtype)
        self._bit_input = paths.inputs[self._bit_leaf, places]

    def margin(self, columns: Floats32) -> float:
        """The sum of the leaves that a row reaches."""
        return self._sum(self._failed(columns))

    def values(self, columns: Floats32) -> Floats64:
        """The Shapley value of each input of a row."""
        if not self._some:
            return np.zeros(self._inputs)
        failed = self._failed(columns)
        met = np.flatnonzero((failed[self._of_leaf] & self._masks) == 0)
        leaves, amounts = self._of_leaf[met], self._amounts[met]
        forbidden = np.bitwise_count(failed)[leaves]
        needed_rows = self._row_of_weights[met]
        gained = amounts * self._weights.ravel()[needed_rows + forbidden]
        lost = np.bincount(leaves, amounts * self._lost(needed_rows, forbidden), len(failed))
        found = np.zeros(self._inputs)
        for group, end in zip(self._groups, [*(group.start for group in self._groups[1:]), len(self._masks)], strict=True):
            first, last = np.searchsorted(met, (group.start, end))
            inputs = group.inputs[met[first:last] - group.start]
            if inputs.size:
                found += np.bincount(inputs.ravel(), np.repeat(gained[first:last], inputs.shape[1]), self._inputs)
        fails = np.flatnonzero(failed[self._bit_leaf] & self._bit)
        return found - np.bincount(self._bit_input[fails], lost[self._bit_leaf[fails]], self._inputs)

    def _lost(self, needed_rows: npt.NDArray[np.int32], forbidden: npt.NDArray[np.uint8]) -> Floats64:
        """The weight of an input that is forbidden: that of one that is needed, with the numbers changed."""
        found: Floats64 = self._weights.T.ravel()[needed_rows + forbidden]
        return found

    def _failed(self, columns: Floats32) -> npt.NDArray[Any]:
        """For each leaf the bits of the inputs that keep a row from it."""
        paths = self._paths
        if not self._some:
            return np.zeros(0, np.uint64)
        wrong = self._nodes.decide(columns)[paths.nodes] != paths.wanted
        found: npt.NDArray[Any] = np.bitwise_or.reduceat(wrong * paths.bits, paths.starts)
        return found

    def _sum(self, failed: npt.NDArray[Any]) -> float:
        return self._nodes.start + self._paths.always + float(self._paths.values[failed == 0].sum())


def _weights() -> Floats64:
    """By how many inputs are needed and how many forbidden: the weight of one that is needed; 0 where none is."""
    made = np.zeros((MOST_BITS + 1, MOST_BITS + 1))
    for needed in range(1, MOST_BITS + 1):
        for forbidden in range(MOST_BITS + 1 - needed):
            made[needed, forbidden] = 1 / (needed * math.comb(needed + forbidden, needed))
    return made


def _distinct(failed: npt.NDArray[Any]) -> tuple[Places, npt.NDArray[Any], Floats64]:
    """Leaf, bits and share of the background rows, for each different bits at a leaf. `failed`: shape (rows, leaves)."""
    rows, leaves = failed.shape
    ordered = np.sort(failed.T, axis=1)
    first = np.ones(ordered.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    places = np.flatnonzero(first)
    return places // rows, ordered.ravel()[places], np.diff(np.append(places, leaves * rows)) / rows


def _groups(needed: npt.NDArray[np.uint8], masks: npt.NDArray[Any], leaves: Places, inputs: Places) -> list[_Group]:
    """The inputs of all bits, which stand in the order of how many are needed. `leaves`: where they are; `inputs`: of the bits of each leaf."""
    made = []
    for count in np.unique(needed).tolist():
        first, last = (int(place) for place in np.searchsorted(needed, (count, count + 1)))
        left, own, found = masks[first:last].copy(), leaves[first:last], np.empty((last - first, count), np.int32)
        for i in range(count):
            lowest = left & (~left + left.dtype.type(1))
            found[:, i] = inputs[own, np.bitwise_count(lowest - left.dtype.type(1))]
            left ^= lowest
        made.append(_Group(first, found))
    return made


def _paths_of(nodes: TreeNodes, owners: Places, constant: npt.NDArray[np.bool_]) -> _Paths:
    """`constant`: what the conditions on columns that never change give."""
    modes, columns = nodes.modes.tolist(), owners[nodes.columns].tolist()
    yes, no, values, fixed = nodes.yes.tolist(), nodes.no.tolist(), nodes.values.tolist(), constant.tolist()
    path_nodes, wanted, bits = list[int](), list[bool](), list[int]()
    starts, inputs, reached, always = list[int](), list[list[int]](), list[float](), 0.0
    waiting: list[tuple[int, tuple[tuple[int, bool], ...]]] = [(root, ()) for root in nodes.roots.tolist()]
    while waiting:
        node, path = waiting.pop()
        if modes[node]:
            for child, true in ((yes[node], True), (no[node], False)):
                if columns[node] >= 0:
                    waiting.append((child, (*path, (node, true))))
                elif fixed[node] == true:
                    waiting.append((child, path))
            continue
        if not path:
            always += values[node]
            continue
        own = list(dict.fromkeys(columns[step] for step, _ in path))
        if len(own) > MOST_BITS:
            raise ValueError(f"a path has conditions on {len(own)} inputs")
        starts.append(len(path_nodes))
        for step, true in path:
            path_nodes.append(step)
            wanted.append(true)
            bits.append(1 << own.index(columns[step]))
        inputs.append(own)
        reached.append(values[node])
    width = max(map(len, inputs), default=0)
    return _Paths(
        np.array(path_nodes, np.int64),
        np.array(wanted, bool),
        np.array(bits, np.uint32 if width <= 32 else np.uint64),
        np.array(starts, np.int64),
        np.array([[*own, *[-1] * (width - len(own))] for own in inputs], np.int64).reshape(len(inputs), width),
        np.array(reached),
        always,
    )
