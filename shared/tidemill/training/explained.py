"""How a version can be explained: found from its ONNX file and rows of its training set, and proved on rows that mix them.

What is proved: that the columns of the trees are each made of one input, or that the margin is a sum of one term for each input; and by which
link the margin gives the answer. What cannot be proved so is sampled.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from msgspec.structs import replace
from onnx import ModelProto, ValueInfoProto, helper

from tidemill.attribution.explainer import Explainer
from tidemill.attribution.links import Link, fitting_link, scale_of
from tidemill.attribution.pooled import background_of
from tidemill.attribution.stored import FILE, Recipe, packed
from tidemill.attribution.trees import TreeNodes, TreeShapley
from tidemill.models.artifact import Artifact, ModelInput, Output
from tidemill.models.engine import Engine, load_engine
from tidemill.models.runner import OnnxRunner
from tidemill.training.dataset import Floats, TrainingSet
from tidemill.training.ensembles import TREES, trees_of
from tidemill.training.fitting import HOLDOUT
from tidemill.training.given_contents import as_served
from tidemill.training.probes import spread

BACKGROUND_ROWS, FEW_BACKGROUND_ROWS = 64, 10
SAMPLED_ROWS, FEW_SAMPLED_ROWS = 32, 16
LARGE_BYTES = 1 << 20
MOST_LEAVES = 100_000
PAIRS = 600_000
"""So many leaves times background rows are looked at for an explanation; the more leaves, the fewer rows."""
MIXES = 1_000
IMPORTANCE_ROWS, FEW_IMPORTANCE_ROWS = 200, 20
LINKED_ROWS, FEW_LINKED_ROWS = 1_000, 50
_TRIED_VALUES, _TRIED_ROWS = 24, 3
_ADDITIVE = 1e-5
_INPUT = "features"
_MIXING = frozenset({
    *TREES, "TreeEnsemble", "SVMClassifier", "SVMRegressor", "Relu", "Tanh", "Sigmoid", "Softmax", "TopK", "Scan", "Normalizer", "ArgMax", "ArgMin",
    "ReduceMean", "ReduceMax", "ReduceMin", "Exp",
})  # fmt: skip
"""Nodes after which a number is hardly a sum of terms. They are looked at no further, since few rows might not show it."""


def explained(artifact: Artifact, examples: TrainingSet, engine: Engine | None = None) -> Explained:
    """A version with what explains it: a function of the version and its training set, so the same bytes whenever it is asked for. `engine`:
    of the version, if it is there already."""
    manifest = artifact.manifest
    engine = engine or load_engine(artifact)
    whole = any(item.is_content for item in manifest.inputs)
    if whole:
        recipe = _with_pools(artifact, examples)
    elif manifest.own_pipeline:
        recipe = sampled_recipe(manifest.output, examples.matrix, FEW_SAMPLED_ROWS)
    else:
        recipe = recipe_of(artifact.onnx, manifest.inputs, manifest.output, engine, examples.matrix)
    content = packed(recipe)
    explainer = Explainer([item.name for item in manifest.inputs], scale_of(manifest.output), engine, recipe)
    count = FEW_IMPORTANCE_ROWS if recipe.method == "sampled" else IMPORTANCE_ROWS
    if recipe.nodes is not None:
        count = _fewer(recipe.nodes, IMPORTANCE_ROWS, FEW_IMPORTANCE_ROWS)
    held_out = spread(examples.matrix[int(len(examples) * (1 - HOLDOUT)) :], count)
    found = importance(explainer, held_out, examples.inputs if whole else ())
    manifest = replace(manifest, feature_importance=found, explanation_sha256=hashlib.sha256(content).hexdigest())
    return Explained(artifact._replace(manifest=manifest), {FILE: content})


def recipe_of(onnx_file: bytes, inputs: Sequence[ModelInput], output: Output, engine: Engine, rows: Floats) -> Recipe:
    """How answers are explained. `rows`: of the training set."""
    if output != "probabilities":
        seen = _Examined(inputs, output, engine, rows, onnx.load_from_string(onnx_file))
        exact = _by_trees(seen) or _by_terms(seen)
        if exact is not None:
            return exact
    return sampled_recipe(output, rows, FEW_SAMPLED_ROWS if len(onnx_file) > LARGE_BYTES else SAMPLED_ROWS)


def sampled_recipe(output: Output, rows: Floats, count: int) -> Recipe:
    """Of answers that are asked for again and again, with so many rows of the training set as background."""
    return Recipe("sampled", Link(scale_of(output)), spread(rows, count))


def _with_pools(artifact: Artifact, examples: TrainingSet) -> Recipe:
    """How answers of a model that takes contents are explained: they are sampled, since a content is one input and many columns."""
    rows = spread(examples.matrix, FEW_SAMPLED_ROWS if len(artifact.onnx) > LARGE_BYTES else SAMPLED_ROWS)
    background, pools = background_of(rows, examples.inputs)
    return Recipe("sampled", Link(scale_of(artifact.manifest.output)), background, pools=pools)


def importance(explainer: Explainer, held_out: Floats, inputs: Sequence[ModelInput] = ()) -> dict[str, float]:
    """The share of each input in the absolute contributions to the answers to held-out rows. `inputs`: of the set, where it has contents."""
    found = [explainer.explain(*_as_logged(inputs, row)).contributions for row in held_out]
    sizes = {name: sum(abs(one[name]) for one in found) for name in explainer.names}
    whole = sum(sizes.values()) or 1.0
    return {name: size / whole for name, size in sizes.items()}


def _as_logged(inputs: Sequence[ModelInput], row: Floats) -> tuple[Floats, dict[str, str]]:
    vector, contents = as_served(inputs, row)
    names = [spec.name for spec in inputs if spec.is_content]
    return vector, {name: one for name, one in zip(names, contents, strict=True) if one is not None}


class Explained(NamedTuple):
    """A version whose manifest has importance and digest, and the files to store beside it."""

    artifact: Artifact
    files: Mapping[str, bytes]


class _Examined:
    """A model and rows. `whole`, `others`: rows of the training set in two orders, and rows without any value; `mixed`: each input is that of
    one or the other."""

    def __init__(self, inputs: Sequence[ModelInput], output: Output, engine: Engine, rows: Floats, model: ModelProto) -> None:
        self.inputs, self.output, self.engine, self.rows, self.model = inputs, output, engine, rows, model
        draw = np.random.default_rng(0)
        self.whole = rows[draw.integers(len(rows), size=MIXES)]
        self.others = rows[draw.integers(len(rows), size=MIXES)]
        self.others[:20] = np.nan
        self.chosen = draw.random(self.whole.shape) < draw.random((MIXES, 1))
        self.mixed = np.where(self.chosen, self.whole, self.others)
        self.swapped = np.where(self.chosen, self.others, self.whole)
        self.answers = engine.predict_rows(self.mixed)


def _by_trees(seen: _Examined) -> Recipe | None:
    trees = [node for node in seen.model.graph.node if node.op_type.startswith("TreeEnsemble")]
    nodes = trees_of(trees[0]) if len(trees) == 1 else None
    if nodes is None or int((nodes.modes == 0).sum()) > MOST_LEAVES:
        return None
    front = b"" if trees[0].input[0] == _INPUT else _cut(seen.model, trees[0].input[0]).SerializeToString()
    run = _Front(front)
    owners = _owners(seen, run)
    if owners is None:
        return None
    background = spread(seen.rows, _fewer(nodes, BACKGROUND_ROWS, FEW_BACKGROUND_ROWS))
    some = slice(_fewer(nodes, LINKED_ROWS, FEW_LINKED_ROWS))
    try:
        made = TreeShapley(nodes, owners, run.of(background), len(seen.inputs))
    except ValueError:
        return None
    link = fitting_link(np.array([made.margin(row) for row in run.of(seen.mixed[some])]), seen.answers[some], seen.output)
    return None if link is None else Recipe("trees", link, background, front, 0, owners, nodes)


def _fewer(nodes: TreeNodes, most: int, least: int) -> int:
    """How many rows to take for trees of so many leaves."""
    leaves = int((nodes.modes == 0).sum())
    return max(least, min(most, PAIRS * most // BACKGROUND_ROWS // leaves))


def _owners(seen: _Examined, run: _Front) -> npt.NDArray[np.int64] | None:
    """The input that each column is made of, -1 for one that never changes; None when a column is made of several."""
    if not run.onnx:
        return np.arange(len(seen.inputs))
    before, changed = run.of(seen.rows[:_TRIED_ROWS]), []
    for i, values in enumerate(_tried(seen)):
        rows = np.repeat(seen.rows[:_TRIED_ROWS], len(values), axis=0)
        rows[:, i] = np.tile(values, len(rows) // len(values))
        after = run.of(rows)
        changed.append((_bits(after) != np.repeat(_bits(before), len(values), axis=0)).any(axis=0))
    made_of = np.array(changed)  # (inputs, columns)
    if (made_of.sum(axis=0) > 1).any():
        return None
    owners = np.where(made_of.any(axis=0), made_of.argmax(axis=0), -1)
    expected = np.where(seen.chosen[:, owners], _bits(run.of(seen.whole)), _bits(run.of(seen.others)))
    return (
        owners if (_bits(run.of(seen.mixed))[:, owners >= 0] == expected[:, owners >= 0]).all() and _constant(run, seen, owners) else None
    )


def _constant(run: _Front, seen: _Examined, owners: npt.NDArray[np.int64]) -> bool:
    still = _bits(run.of(np.vstack([seen.mixed, seen.rows[:1]])))[:, owners < 0]
    return bool((still == still[:1]).all())


def _tried(seen: _Examined) -> Iterator[Floats]:
    """For each input the values that it is given: every text, or numbers from all over its range; and none."""
    for i, item in enumerate(seen.inputs):
        known = seen.rows[:, i][~np.isnan(seen.rows[:, i])]
        if item.is_category:
            known = np.arange(len(item.categories), dtype=np.float32)
        elif len(known):
            known = np.unique(np.quantile(known, np.linspace(0, 1, _TRIED_VALUES)))
        yield np.append(known, np.nan).astype(np.float32)


def _by_terms(seen: _Examined) -> Recipe | None:
    """By the last number of the graph that is a sum of one term for each input, and that gives the answer by a link."""
    plain = _with_raw_scores(seen.model)
    for name in reversed(_unmixed(plain)):
        front = _cut(plain, name).SerializeToString()
        found = _margin_of(seen, front)
        if found is not None:
            return Recipe("additive", found.link, spread(seen.rows, BACKGROUND_ROWS), front, found.column)
    return None


class _Margin(NamedTuple):
    column: int
    link: Link


def _margin_of(seen: _Examined, front: bytes) -> _Margin | None:
    try:
        run = _Front(front)
        mixed, swapped, whole, others = (run.of(rows) for rows in (seen.mixed, seen.swapped, seen.whole, seen.others))
    except Exception:  # of onnxruntime, which have no common root: what it cannot run alone is no margin
        return None
    if mixed.size not in (MIXES, 2 * MIXES) or mixed.dtype.kind != "f":
        return None
    for column in reversed(range(mixed.size // MIXES)):
        one, two, three, four = (np.asarray(found, np.float64).reshape(MIXES, -1)[:, column] for found in (mixed, swapped, whole, others))
        size = max(float(np.abs([one, two, three, four]).max()), 1e-30)
        if (
            np.isfinite(size)
            and np.abs(one + two - three - four).max() <= _ADDITIVE * size
            and (link := fitting_link(one, seen.answers, seen.output))
        ):
            return _Margin(column, link)
    return None


def _unmixed(model: ModelProto) -> list[str]:
    """The outputs of nodes that come from no node which mixes inputs, in the order of the graph; only those that may be numbers of a row."""
    mixed, found = set[str](), list[str]()
    for node in model.graph.node:
        if node.op_type in _MIXING or mixed & set(node.input):
            mixed |= set(node.output)
        else:
            found += [name for name in node.output if name]
    return found


def _with_raw_scores(model: ModelProto) -> ModelProto:
    """Linear classifiers with scores instead of probabilities."""
    made = ModelProto()
    made.CopyFrom(model)
    for node in made.graph.node:
        if node.op_type == "LinearClassifier":
            for attribute in node.attribute:
                if attribute.name == "post_transform":
                    attribute.CopyFrom(helper.make_attribute("post_transform", "NONE"))
    return made


def _cut(model: ModelProto, output: str) -> ModelProto:
    """The part of a graph that makes one tensor."""
    made = ModelProto()
    made.CopyFrom(model)
    needed, kept = {output}, list[Any]()
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    del made.graph.node[:], made.graph.output[:], made.graph.initializer[:], made.graph.value_info[:]
    made.graph.node.extend(reversed(kept))
    made.graph.initializer.extend(item for item in model.graph.initializer if item.name in needed)
    made.graph.output.append(ValueInfoProto(name=output))
    return made


class _Front:
    """A part of a graph that can be run; b"": nothing, the rows stay as they are."""

    def __init__(self, front: bytes) -> None:
        self.onnx = front
        self._runner = OnnxRunner("a part of the model", front) if front else None

    def of(self, rows: Floats) -> Any:
        """The tensor of rows."""
        if self._runner is None:
            return rows
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (found,) = self._runner.run({_INPUT: np.asarray(rows, np.float32)})
        return np.asarray(found)


def _bits(found: Any) -> Any:
    """Numbers to compare to the bit; all NaN are alike."""
    columns = np.ascontiguousarray(found, np.float32).copy()
    columns[np.isnan(columns)] = np.nan
    return columns.view(np.uint32)
