"""The training set as a file's contract sees it: texts by the contract's numbers, labels by the contract's classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace as replaced

from tidemill.declarations import Model
from tidemill.declarations.models import class_name
from tidemill.errors import TidemillError
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.training.dataset import TrainingSet, taken
from tidemill.training.imported.contract import Contract
from tidemill.training.imported.tail import output_of

FEWEST_ROWS = 10
HOLDOUT = 0.2


def text_numbers(texts: Sequence[str], known: Sequence[str]) -> npt.NDArray[np.float64]:
    """The number of each text: its place among the known ones, the place of any other, or NaN without such a place."""
    places = {text: float(place) for place, text in enumerate(known)}
    other = places.pop(UNKNOWN_TEXT, math.nan)
    return np.array([places.get(text, other) for text in texts], np.float64)


def recoded(contract: Contract, examples: TrainingSet) -> TrainingSet:
    """The set with the texts of the contract in the place of those that the examples have."""
    values, inputs = np.array(examples.values, np.float64), list(examples.inputs)
    for i, spec in enumerate(inputs):
        if spec.name in contract.categories:
            known = contract.texts(spec.name)
            numbers = np.append(text_numbers(spec.categories, known), math.nan)
            column = values[:, i]
            values[:, i] = numbers[np.where(np.isnan(column), len(spec.categories), column).astype(np.int64)]
            inputs[i] = replaced(spec, categories=known)
    return replace(examples, values=values, inputs=inputs)


def labelled(model: Model, contract: Contract, examples: TrainingSet, classes: Sequence[str], note: Callable[[str], None]) -> TrainingSet:
    """The set with labels as the file answers: numbers, 0 and 1, or places among the `classes` that are served. Examples of other classes are
    left out, and told. Raises TidemillError when the labels are of another kind, or too few."""
    output, gives = output_of(contract), contract.output.gives
    if output == "probabilities":
        examples = _in_classes(examples, classes, note)
    elif examples.texts:
        raise TidemillError(
            f"model {model.name!r}: its outcome {model.outcome.value!r} is a text, and the file gives one {output}",
            mend='give the contract "classes"',
        )
    elif output == "probability" and (other := examples.labels[~np.isin(examples.labels, (0.0, 1.0))]).size:
        raise TidemillError(
            f"model {model.name!r}: its outcome {model.outcome.value!r} is {other[0]:g} at times, and the contract says {gives!r}, which is of 0 and 1",
            mend='say "value", give the contract "classes", or declare a condition as the outcome, such as "delay > 15"',
        )
    _check_rows(model, examples, output)
    return examples


def holdout_of(examples: TrainingSet) -> TrainingSet:
    """The newest fifth of the rows."""
    return taken(examples, np.arange(int(len(examples) * (1 - HOLDOUT)), len(examples)))


def _in_classes(examples: TrainingSet, classes: Sequence[str], note: Callable[[str], None]) -> TrainingSet:
    names = [class_name(examples.texts[int(label)] if examples.texts else float(label)) for label in examples.labels.tolist()]
    kept = [place for place, name in enumerate(names) if name in classes]
    if len(kept) < len(names):
        others = ", ".join(sorted(set(names) - set(classes))[:5])
        note(f"{len(names) - len(kept):,} examples are left out: their outcome is none of the contract's classes, such as: {others}")
    places = np.array([classes.index(names[place]) for place in kept], np.float64)
    return replace(taken(examples, np.array(kept, np.int64)), labels=places, texts=tuple(classes) if examples.texts else ())


def _check_rows(model: Model, examples: TrainingSet, output: str) -> None:
    if len(examples) < FEWEST_ROWS:
        raise TidemillError(
            f"model {model.name!r}: {len(examples)} examples are too few to measure a model on; {FEWEST_ROWS} are the least",
            mend="collect more outcomes",
        )
    held = holdout_of(examples).labels
    counts = np.unique(held, return_counts=True)[1]
    if output != "value" and (len(counts) < 2 or (output == "probability" and counts.min() < 2)):
        raise TidemillError(
            f"model {model.name!r}: the newest {len(held)} examples, on which it is measured, do not show two outcomes twice",
            mend="collect more outcomes, or check the outcome",
        )
