"""What is wrong with a training set before anything is fitted: expectations that it breaks, inputs that know the label, inputs that say
nothing, and inputs that are not what they were.

An error refuses the set, a warning is told. Each is one line with its mend.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tidemill.declarations import Model
from tidemill.declarations.training import Expect
from tidemill.models.artifact import Manifest, ModelInput, Output
from tidemill.stats.histograms import count
from tidemill.stats.roc import auc_with_error
from tidemill.stats.several import auc_one_vs_rest
from tidemill.training.dataset import Floats, TrainingSet
from tidemill.training.stages.findings import CheckFinding, Findings

KNOWS, SUSPECT, FEWEST_ROWS = 0.99, 0.95, 40
"""An input alone with an area under the curve, or a share of the variance, of so much knows the label, or is suspected to."""
NOTHING_MISSING, MOVED, MOVED_MISSING = 0.99, 0.25, 0.2
MANY_TEXTS, TEXTS_A_ROW = 100, 0.2
_TREE_ROWS, _LEAVES, _LEAF_ROWS = 20_000, 32, 5
_HELD_OUT = 5


def check(model: Model, examples: TrainingSet, before: Manifest | None, output: Output) -> Findings:
    """`before`: the manifest of the newest stored version, whose inputs are compared; `output`: what the labels are labels of."""
    found = list[CheckFinding]()
    for i, spec in enumerate(examples.inputs):
        numbers = examples.numbers(i)
        if expect := model.training.expect.get(spec.name):
            found += _expected(spec, numbers, expect)
        found += _empty(spec, numbers)
        found += _texts(spec, numbers, before)
        found += _moved(spec, numbers, before)
        if spec.name not in model.training.trusted:
            found += _knows(spec, numbers, examples.labels, output)
    return Findings(len(examples.inputs), [*found, *_classes(examples, before), *_own_event(model)])


def _classes(examples: TrainingSet, before: Manifest | None) -> Iterator[CheckFinding]:
    """Classes that are not those of the version before."""
    if before is None or not before.class_names or not examples.texts:
        return
    now, was = {*examples.texts}, {*before.class_names}
    for names, word in ((now - was, "came"), (was - now, "went")):
        if names:
            told = f"classes {word} beside version {before.version}: {', '.join(map(repr, sorted(names)[:5]))}"
            yield CheckFinding("warning", "", told, "see whether the labels are right; Outcome(classes=[...]) refuses others")


def _expected(spec: ModelInput, numbers: Floats, expect: Expect) -> Iterator[CheckFinding]:
    """What the set has that was not expected."""
    there = numbers[~np.isnan(numbers)]
    missing = 1 - len(there) / len(numbers)
    if missing > expect.missing:
        yield _unexpected(spec, f"{missing:.1%} of the rows have no {spec.name!r}, {expect.missing:.1%} are expected")
    for bound, word, wrong in ((expect.low, "below", np.less), (expect.high, "above", np.greater)):
        if bound is not None and not spec.is_category and (beyond := there[wrong(there, bound)]).size:
            yield _unexpected(spec, f"{len(beyond):,} rows have a {spec.name!r} {word} {bound:g}, such as {beyond[0]:g}")
    if expect.among is not None and spec.is_category:
        seen = np.unique(there).astype(int)
        others = [spec.categories[place] for place in seen if spec.categories[place] not in expect.among]
        if others:
            yield _unexpected(spec, f"{spec.name!r} has texts that are not expected: {', '.join(map(repr, others[:5]))}")


def _unexpected(spec: ModelInput, what: str) -> CheckFinding:
    return CheckFinding("error", spec.name, what, f"correct the events, or the Expect of {spec.name!r} in training=")


def _empty(spec: ModelInput, numbers: Floats) -> Iterator[CheckFinding]:
    """Inputs that say nothing, or nearly."""
    there = numbers[~np.isnan(numbers)]
    missing = 1 - len(there) / len(numbers)
    if not len(there):
        yield CheckFinding(
            "warning", spec.name, f"no row has a {spec.name!r}", "see that its events arrive before the questions, or leave it out"
        )
    elif missing >= NOTHING_MISSING:
        yield CheckFinding(
            "warning", spec.name, f"{missing:.1%} of the rows have no {spec.name!r}", "leave it out, or give its view a longer window"
        )
    elif np.ptp(there) == 0 and not missing:
        told = spec.categories[int(there[0])] if spec.is_category else f"{there[0]:g}"
        yield CheckFinding("warning", spec.name, f"{spec.name!r} is {told} in every row", "leave it out")


def _texts(spec: ModelInput, numbers: Floats, before: Manifest | None) -> Iterator[CheckFinding]:
    """A category that explodes."""
    if spec.is_content:
        return
    texts = len(spec.categories)
    if texts >= MANY_TEXTS and texts > TEXTS_A_ROW * len(numbers):
        yield CheckFinding(
            "warning", spec.name, f"{spec.name!r} has {texts:,} texts in {len(numbers):,} rows, so most are seen once or twice",
            "leave it out, or publish a coarser one",
        )  # fmt: skip
        return
    known = {item.name: item.categories for item in before.inputs} if before else {}
    if spec.name in known and texts >= MANY_TEXTS and texts > 2 * len(known[spec.name]):
        yield CheckFinding(
            "warning", spec.name, f"{spec.name!r} has {texts:,} texts, {len(known[spec.name]):,} in the version before",
            "see what writes them: a category should not grow with the data",
        )  # fmt: skip


def _moved(spec: ModelInput, numbers: Floats, before: Manifest | None) -> Iterator[CheckFinding]:
    """An input whose distribution is not that of the version before: the population stability index, and the share missing."""
    reference = before.reference.get(spec.name) if before else None
    if before is None or reference is None or spec.is_category or not reference.rows:
        return
    now = count(reference.edges, numbers)
    missing, was = now.missing / max(now.rows, 1), reference.missing / reference.rows
    if abs(missing - was) > MOVED_MISSING:
        told = f"{missing:.1%} of the rows have no {spec.name!r}, {was:.1%} in version {before.version}"
        yield CheckFinding("warning", spec.name, told, "see that its events still arrive in time")
    chance = (len(now.counts) - 1) * sum(1 / max(sum(counts), 1) for counts in (reference.counts, now.counts))  # the index of like samples
    index = stability(reference.counts, now.counts) - chance
    if index > MOVED:
        told = f"{spec.name!r} is distributed otherwise than in version {before.version} (population stability index {index:.2f})"
        yield CheckFinding("warning", spec.name, told, "see whether its unit or its source changed; if the world did, nothing is wrong")


def stability(before: list[int], now: list[int]) -> float:
    """The population stability index of two histograms with the same edges; an empty bin counts as half a row."""
    one, two = (np.maximum(np.array(counts, np.float64), 0.5) for counts in (before, now))
    one, two = one / one.sum(), two / two.sum()
    return float(np.sum((two - one) * np.log(two / one)))


def _knows(spec: ModelInput, numbers: Floats, labels: npt.NDArray[np.float64], output: Output) -> Iterator[CheckFinding]:
    """An input that tells the label by itself, on rows that come later."""
    score, least = alone(numbers, labels, output)
    what = f"{spec.name!r} alone tells the label: {'a share of its variance' if output == 'value' else 'an AUC'} of {score:.4g} on rows held out"
    if least >= KNOWS:
        yield CheckFinding(
            "error", spec.name, f"{what}, so it is likely known only with the outcome",
            f"leave it out; if it is known when the question is asked, write training=tm.Training(trusted=[{spec.name!r}])",
        )  # fmt: skip
    elif least >= SUSPECT:
        yield CheckFinding("warning", spec.name, what, "see whether it is known when the question is asked")


def alone(numbers: Floats, labels: npt.NDArray[np.float64], output: Output) -> tuple[float, float]:
    """How well a small tree on this input alone tells the labels of the last fifth of the rows: area under the curve (of several classes the
    mean of one against the rest), or share of the variance, and what it is at least; 0 where too few rows tell."""
    every = slice(None, None, max(1, len(labels) // _TREE_ROWS))
    rows, labels = numbers[every, None], labels[every]
    cut = len(labels) - len(labels) // _HELD_OUT
    held = labels[cut:]
    if len(held) < FEWEST_ROWS or np.ptp(labels[:cut]) == 0 or np.ptp(held) == 0 or np.isnan(rows[:cut]).all():
        return 0.0, 0.0
    kind = DecisionTreeRegressor if output == "value" else DecisionTreeClassifier
    leaves = 2 * _LEAVES if output == "value" else _LEAVES
    made = kind(max_leaf_nodes=leaves, min_samples_leaf=_LEAF_ROWS, random_state=0).fit(rows[:cut], labels[:cut])
    if output == "value":
        score = 1 - float(np.mean((held - made.predict(rows[cut:])) ** 2)) / float(np.var(held))
        return score, score
    said = np.zeros((len(held), int(labels.max()) + 1))
    said[:, made.classes_.astype(int)] = made.predict_proba(rows[cut:])
    if output == "probabilities":
        score = auc_one_vs_rest(held.astype(np.int64), said)
        return (score, score) if np.isfinite(score) else (0.0, 0.0)
    score, error = auc_with_error(held, said[:, 1])
    return (score, score - 2 * error) if np.isfinite(score) else (0.0, 0.0)


def _own_event(model: Model) -> Iterator[CheckFinding]:
    """Views that read the event that asks: they change when it is published."""
    for view in model.views:
        if view.source is model.on:
            yield CheckFinding(
                "warning", "", f"view {view.name!r} reads {model.on.name!r}, the event that asks: a request that comes after it sees it, and no row of the training set does",
                "ask first, then publish (docs/models.md)",
            )  # fmt: skip
