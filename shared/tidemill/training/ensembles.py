"""The trees of an ONNX file as flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from tidemill.attribution.trees import MODES, TreeNodes

TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_TRUE_CLASS = 1


def trees_of(node: Any) -> TreeNodes | None:
    """The trees of a node of an ONNX graph, which gives one number; of two classes those of the second. None for what is no sum of trees."""
    if node.op_type not in TREES:
        return None
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    base, modes = found.get("base_values", []), [mode.decode() for mode in found["nodes_modes"]]
    if len(base) > 1 or found.get("aggregate_function", b"SUM") != b"SUM" or not set(modes) <= set(MODES) or _tensors(found):
        return None
    keys = list(zip(found["nodes_treeids"], found["nodes_nodeids"], strict=True))
    places = {key: place for place, key in enumerate(keys)}
    trees = [tree for tree, _ in keys]
    return TreeNodes(
        np.array([MODES.index(mode) for mode in modes], np.int8),
        np.array(found["nodes_featureids"], np.int64),
        np.array(found["nodes_values"], np.float32),
        np.array(found.get("nodes_missing_value_tracks_true") or [0] * len(keys), bool),
        _followers(trees, found["nodes_truenodeids"], modes, places),
        _followers(trees, found["nodes_falsenodeids"], modes, places),
        _leaf_values(found, places),
        np.array([place for place, tree in enumerate(trees) if place == 0 or trees[place - 1] != tree], np.int64),
        float(base[0]) if base else 0.0,
    )


def _tensors(found: dict[str, Any]) -> bool:
    """Whether numbers stand in tensors of doubles, which comparisons in float32 do not take."""
    return any(name.endswith("_as_tensor") for name in found)


def _followers(trees: list[int], ids: list[int], modes: list[str], places: dict[tuple[int, int], int]) -> Any:
    made = [0 if mode == "LEAF" else places[tree, node] for tree, node, mode in zip(trees, ids, modes, strict=True)]
    return np.array(made, np.int64)


def _leaf_values(found: dict[str, Any], places: dict[tuple[int, int], int]) -> Any:
    kind = "class" if "class_ids" in found else "target"
    ids = found[f"{kind}_ids"]
    chosen = _TRUE_CLASS if len(set(ids)) > 1 else ids[0]
    values = np.zeros(len(places))
    for number, tree, node, weight in zip(ids, found[f"{kind}_treeids"], found[f"{kind}_nodeids"], found[f"{kind}_weights"], strict=True):
        if number == chosen:
            values[places[tree, node]] += weight
    return values
