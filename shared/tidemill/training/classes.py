"""The classes of a model: which there are, in which order, and the examples with the places of their classes as labels.

A pipeline gets the places 0, 1, 2 and so on, whatever the classes are called: some estimators take nothing else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tidemill.declarations import Model
from tidemill.declarations.models import class_name
from tidemill.errors import TidemillError
from tidemill.limits import MOST_CLASSES
from tidemill.training.dataset import TrainingSet

_MEND = 'write a condition such as "delay > 15" or "kind == 2", or use a regressor'


def in_classes(model: Model, examples: TrainingSet, *, classifier: bool) -> tuple[TrainingSet, list[str]]:
    """The examples with the places of their classes as labels, and the classes; as they are, and none, for a regressor and for an outcome that
    is true or false. Raises TidemillError."""
    if not classifier and examples.texts:
        raise TidemillError(
            f"model {model.name!r}: its outcome {model.outcome.value!r} is a text, of which a regressor learns nothing",
            mend="return a classifier from the function given as pipeline",
        )
    found = np.unique(examples.labels)
    if not classifier or not (examples.texts or model.outcome.classes or not np.isin(found, (0.0, 1.0)).all()):
        return examples, []
    names = {label: class_name(examples.texts[int(label)] if examples.texts else float(label)) for label in found.tolist()}
    _check_number(model, examples, names)
    order = model.outcome.class_names or (sorted(names.values()) if examples.texts else list(names.values()))
    if lacking := [name for name in order if name not in names.values()]:
        raise TidemillError(
            f"model {model.name!r}: no example is of class {', '.join(map(repr, lacking))}; there are {', '.join(map(repr, names.values()))}",
            mend="correct classes= of the outcome, or collect more outcomes",
        )
    places = np.array([order.index(names[label]) for label in examples.labels.tolist()], np.float64)
    return replace(examples, labels=places, texts=tuple(order) if examples.texts else ()), order


def check_classes(model: Model, classes: list[str], before: TrainingSet, after: TrainingSet) -> None:
    """Raises TidemillError unless each class occurs twice among the examples before the holdout, and two classes within it."""
    counts = [int(np.sum(before.labels == place)) for place in range(len(classes))]
    if few := [f"{name!r} ({count})" for name, count in zip(classes, counts, strict=True) if count < 2]:
        raise TidemillError(
            f"model {model.name!r}: too few of the {len(before):,} examples before the holdout (the newest fifth) are of class {', '.join(few[:5])}; "
            "2 are the least",
            mend="collect more outcomes, or leave such classes out by classes= of the outcome",
        )
    if len(np.unique(after.labels)) < 2:
        raise TidemillError(
            f"model {model.name!r}: all {len(after)} held-out examples are of one class, {classes[int(after.labels[0])]!r}",
            mend="collect more outcomes, or check the outcome's field",
        )


def _check_number(model: Model, examples: TrainingSet, names: dict[float, str]) -> None:
    value = model.outcome.value
    if not examples.texts and (len(names) > MOST_CLASSES or any(label != int(label) for label in names)):
        raise TidemillError(
            f"model {model.name!r}: a classifier needs an outcome that is true or false, a text, or one of {MOST_CLASSES} whole numbers at most, but "
            f"{value!r} gives {len(names):,} different numbers",
            mend=_MEND,
        )
    if len(names) > MOST_CLASSES:
        raise TidemillError(
            f"model {model.name!r}: {value!r} gives {len(names):,} classes; {MOST_CLASSES} are the most",
            mend="name those that matter: classes=[...]",
        )
    if len(names) < 2:
        raise TidemillError(
            f"model {model.name!r}: all {len(examples):,} examples are of one class, {next(iter(names.values()))!r}",
            mend="collect more outcomes, or check the outcome's field",
        )
