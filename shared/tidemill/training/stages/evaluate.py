"""Measures a fitted pipeline on the rows that were held out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.stats.several import hits, log_losses
from tidemill.training.classes import in_classes
from tidemill.training.dataset import Floats, TrainingSet, taken
from tidemill.training.fitting import Fitted, fitted_on, outputs, score
from tidemill.training.probes import spread
from tidemill.training.stages.evaluation import Bin, ChampionBeside, Evaluation, Importance, LearningPoint, Segment

TENTHS = 10
SHUFFLED_ROWS, SHUFFLES = 1_000, 3
LEARNING_PARTS, LEARNING_ROWS = (8, 4, 2), 2_500
SEGMENTS, SEGMENT_ROWS, FEW_TEXTS = 12, 20, 12
_ROC_POINTS = 200
_CLIPPED = 1e-7

Numbers = npt.NDArray[np.float64]


def evaluate(
    model: Model, examples: TrainingSet, fitted: Fitted, version: str, data: str, champion: ChampionBeside | None = None
) -> Evaluation:
    """`examples`: the set that was fitted, whose last rows were held out; `data`: its digest."""
    if fitted.classes:
        examples, _ = in_classes(model, examples, classifier=True)
    return evaluated(model, examples, fitted, version, data, champion)


def evaluated(
    model: Model,
    examples: TrainingSet,
    fitted: Fitted,
    version: str,
    data: str,
    champion: ChampionBeside | None = None,
    shuffled_rows: int = SHUFFLED_ROWS,
) -> Evaluation:
    """The same of a set whose labels are as the model's answers. What was fitted elsewhere (`fitted` has no pipeline) has no learning curve."""
    held, outputs_held = fitted.holdout, np.asarray(fitted.holdout_output, np.float64)
    fitting = taken(examples, np.arange(len(examples) - len(held)))
    loss = "log_loss" if fitted.probability else "mae"
    told, true = (
        (outputs_held.max(axis=1), hits(held.labels.astype(np.int64), outputs_held)) if fitted.classes else (outputs_held, held.labels)
    )
    bins = list(_bins(true, told))
    return Evaluation(
        model=model.name, version=version, output=fitted.output, fitted_rows=len(fitting), held_out_rows=len(held),
        held_out_from=int(held.times_ms.min()), data=data, metrics=fitted.metrics, loss=loss,
        baseline=_baseline(fitting, held, fitted),
        ece=sum(one.rows * abs(one.output - one.label) for one in bins) / len(held), bins=bins,
        roc=_roc(held.labels, outputs_held) if fitted.output == "probability" else [],
        importance=importance(fitted, rows=shuffled_rows),
        learning=_learning(model, fitting, fitted, loss) if fitted.pipeline is not None else [],
        segments=_segments(model, taken(examples, np.arange(len(fitting), len(examples))), fitted), champion=champion,
    )  # fmt: skip


def losses(labels: Any, output: Any, *, probability: bool) -> Numbers:
    """The loss of each row: of a probability, or of those of several classes, the log loss; of a value the absolute error."""
    if np.ndim(output) > 1:
        return log_losses(np.asarray(labels).astype(np.int64), np.asarray(output, np.float64))
    if not probability:
        away: Numbers = np.abs(np.asarray(labels, np.float64) - output)
        return away
    clipped = np.clip(np.asarray(output, np.float64), _CLIPPED, 1 - _CLIPPED)
    lost: Numbers = -np.where(np.asarray(labels) > 0, np.log(clipped), np.log1p(-clipped))
    return lost


def importance(fitted: Fitted, seed: int = 0, rows: int = SHUFFLED_ROWS) -> list[Importance]:
    """By how much the loss on held-out rows grows without each input, the most important first."""
    some = spread(fitted.holdout.matrix, rows)
    labels = fitted.holdout.labels[:: max(1, len(fitted.holdout) // rows)][:rows]
    whole = float(losses(labels, _asked(fitted, some), probability=fitted.probability).mean())
    draw, found = np.random.default_rng(seed), []
    for i, spec in enumerate(fitted.holdout.inputs):
        shuffled = np.concatenate([_shuffled(some, i, draw) for _ in range(SHUFFLES)])
        grown = losses(np.tile(labels, SHUFFLES), _asked(fitted, shuffled), probability=fitted.probability)
        each = grown.reshape(SHUFFLES, -1).mean(axis=1) - whole
        found.append(Importance(spec.name, float(each.mean()), float(each.std())))
    return sorted(found, key=lambda one: -one.mean)


def _shuffled(rows: Floats, column: int, draw: np.random.Generator) -> Floats:
    changed = rows.copy()
    changed[:, column] = draw.permutation(changed[:, column])
    return changed


def _asked(fitted: Fitted, rows: Floats) -> Floats:
    """What the pipeline that has not seen the held-out rows answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that were not there in training
        return outputs(fitted.first, fitted.given(rows), probability=fitted.probability, several=bool(fitted.classes))


def _baseline(fitting: TrainingSet, held: TrainingSet, fitted: Fitted) -> dict[str, float]:
    """The metrics of who always says the mean label of the rows before, or the share of each class."""
    if not fitted.classes:
        return score(held.labels, np.full(len(held), fitting.labels.mean(), np.float32), probability=fitted.probability)
    shares = np.bincount(fitting.labels.astype(np.int64), minlength=len(fitted.classes)) / len(fitting)
    return score(held.labels, np.tile(shares.astype(np.float32), (len(held), 1)), probability=True)


def _bins(labels: Numbers, output: Numbers) -> Iterator[Bin]:
    order = np.argsort(output, kind="stable")
    for places in np.array_split(order, min(TENTHS, len(order))):
        yield Bin(len(places), float(output[places].mean()), float(labels[places].mean()))


def _roc(labels: Numbers, output: Numbers) -> list[tuple[float, float]]:
    """Points of the curve, from (0, 0) to (1, 1): at most some hundreds, of which the curve's own are kept."""
    order = np.argsort(-output, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(output[order])), len(order) - 1)
    hits = np.cumsum(labels[order] > 0)[ends]
    points = np.stack([(ends + 1 - hits) / max(1, len(order) - hits[-1]), hits / max(1, hits[-1])], axis=1)
    kept = np.unique(np.linspace(0, len(points) - 1, _ROC_POINTS).astype(int))
    return [(0.0, 0.0), *((round(float(x), 5), round(float(y), 5)) for x, y in points[kept])]


def _learning(model: Model, fitting: TrainingSet, fitted: Fitted, loss: str) -> list[LearningPoint]:
    """The loss after a part of the rows, evenly spread, and after all of them. A part that cannot be fitted is left out."""
    found = dict[int, float]()
    for part in LEARNING_PARTS:
        count = min(len(fitting) // part, LEARNING_ROWS * 2 // part)
        places = np.unique(np.linspace(0, len(fitting) - 1, max(count, 1)).astype(int))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = fitted_on(model, taken(fitting, places))
            several = bool(fitted.classes)
            output = outputs(made, fitted.given(fitted.holdout.matrix), probability=fitted.probability, several=several)
            if several and output.shape[1] != len(fitted.classes):
                continue  # a class has no row in this part
        except (TidemillError, ValueError, IndexError):  # one class, fewer rows than neighbours
            continue
        found[len(places)] = float(losses(fitted.holdout.labels, output, probability=fitted.probability).mean())
    found[len(fitting)] = fitted.metrics[loss]
    return [LearningPoint(rows, value) for rows, value in sorted(found.items()) if math.isfinite(value)]


def _segments(model: Model, held: TrainingSet, fitted: Fitted) -> list[Segment]:
    found = list[Segment]()
    for field in _fields(model, held):
        for value, places in _parts(held, field):
            if len(places) >= SEGMENT_ROWS:
                found.append(Segment(field, value, len(places), _metrics(held.labels[places], fitted.holdout_output[places], fitted)))
    return found


def _metrics(labels: Numbers, output: Floats, fitted: Fitted) -> dict[str, float]:
    """Of rows that may all have one label: then the loss alone."""
    if fitted.output == "probability" and len(np.unique(labels)) < 2:
        return {"log_loss": float(losses(labels, output, probability=True).mean()), "positive_share": float(labels.mean())}
    return {name: value for name, value in score(labels, output, probability=fitted.probability).items() if math.isfinite(value)}


def _fields(model: Model, held: TrainingSet) -> Sequence[str]:
    """The declared fields, else the inputs that are few texts."""
    if model.training.segments:
        return model.training.segments
    return [spec.name for spec in held.inputs if spec.is_category and 1 < len(spec.categories) <= FEW_TEXTS]


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return "all" if math.isinf(high) else f"up to {high:.6g}"
    return f"above {low:.6g}" if math.isinf(high) else f"above {low:.6g}, up to {high:.6g}"


def _parts(held: TrainingSet, field: str) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """The values of a field with the rows that have each: the most frequent texts, or quarters of the numbers."""
    values = held.column(field)
    if pa.types.is_string(values.type) or pa.types.is_boolean(values.type):
        texts = values.cast(pa.string()).fill_null("missing")
        counted = pc.value_counts(texts).to_pylist()
        for value in sorted(counted, key=lambda one: (-one["counts"], one["values"]))[:SEGMENTS]:
            yield value["values"], np.flatnonzero(pc.equal(texts, value["values"]).to_numpy(zero_copy_only=False))
        return
    numbers = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    there = numbers[~np.isnan(numbers)]
    cuts = np.unique(np.quantile(there, [0.25, 0.5, 0.75])) if len(there) else np.array([])
    ends = [-math.inf, *cuts.tolist(), math.inf]
    for low, high in pairwise(ends):
        yield _range(low, high), np.flatnonzero((numbers > low) & (numbers <= high))
    if len(there) < len(numbers):
        yield "missing", np.flatnonzero(np.isnan(numbers))
