"""Inputs that help, and help again on other rows, are kept; the others are dropped before the pipeline sees them.

The version has all declared inputs, as serving gives them; its pipeline begins with a step that takes those which were chosen, or its column transformers do not name the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from tidemill.declarations import Model
from tidemill.declarations.training import Select
from tidemill.errors import TidemillError
from tidemill.training.dataset import Note, TrainingSet, taken
from tidemill.training.fitting import fit
from tidemill.training.frames import names_columns
from tidemill.training.stages.evaluate import importance
from tidemill.training.stages.named import without
from tidemill.training.stages.run import Watch

_ROWS = 0.8


class Chosen(msgspec.Struct, frozen=True):
    """`inputs`: those that are kept, in their order; `shares`: of each input, the share of rounds in which it helped; `means`: its mean
    importance."""

    inputs: list[str]
    shares: dict[str, float]
    means: dict[str, float]


def choose(model: Model, before: TrainingSet, select: Select, note: Note, watch: Watch) -> Chosen:
    """`before`: the rows that are not held out. Each round fits on another part of them, and measures on their last fifth.

    Raises TidemillError when no input helps, or the pipeline names its columns in a way in which none can be dropped.
    """
    if whole := [spec.name for spec in before.inputs if spec.is_content]:
        raise TidemillError(
            f"model {model.name!r}: {whole[0]!r} is taken whole, and inputs are chosen among numbers and categories",
            mend="leave select= out, and the inputs that you do not want out of the model",
        )
    if names_columns(made := model.pipeline()):
        without(made, [spec.name for spec in before.inputs], ())
    helped = np.zeros((select.rounds, len(before.inputs)))
    for number in range(select.rounds):
        watch("rounds of selecting inputs", number, select.rounds)
        note(f"selecting inputs, round {number + 1} of {select.rounds}")
        draw = np.random.default_rng(number)
        some = np.sort(draw.choice(len(before), int(len(before) * _ROWS), replace=False))
        found = {one.input: one.mean for one in importance(fit(model, taken(before, some)), number)}
        helped[number] = [found[spec.name] for spec in before.inputs]
    watch("rounds of selecting inputs", select.rounds, select.rounds)
    return _chosen(model, [spec.name for spec in before.inputs], helped, select)


def _chosen(model: Model, names: list[str], helped: npt.NDArray[np.float64], select: Select) -> Chosen:
    shares, means = (helped > select.least).mean(axis=0), helped.mean(axis=0)
    kept = [place for place in np.argsort(-means, kind="stable").tolist() if shares[place] >= select.stable][: select.most]
    if not kept:
        raise TidemillError(
            f"model {model.name!r}: no input helps in {select.stable:.0%} of {select.rounds} rounds",
            mend="lower least or stable of the Select, or see what the label is",
        )
    return Chosen(
        [names[place] for place in sorted(kept)],
        dict(zip(names, map(float, shares), strict=True)),
        dict(zip(names, map(float, means), strict=True)),
    )


class ChosenPlaces(NamedTuple):
    """The columns that were chosen for a pipeline, by their places among the inputs, and the names of all inputs."""

    places: list[int]
    names: list[str]


def with_chosen(make: Callable[[], Any], chosen: ChosenPlaces) -> Callable[[], Any]:
    """The pipeline that takes the chosen columns alone: by a first step of its own, or, where it names its columns, by shorter lists of them."""
    return partial(_selected, make, chosen)


def chosen_places(make: Callable[[], Any]) -> ChosenPlaces | None:
    """What was chosen for a pipeline; None: it takes all columns."""
    return make.args[1] if isinstance(make, partial) and make.func is _selected else None


def of_declared(make: Callable[[], Any], change: Callable[[Callable[[], Any]], Callable[[], Any]]) -> Callable[[], Any]:
    """Changes the pipeline that the project declares, whatever columns were chosen for it: its parameters keep their names."""
    chosen = chosen_places(make)
    return change(make) if chosen is None else with_chosen(change(make.args[0]), chosen)  # type: ignore[attr-defined]


def _selected(make: Callable[[], Any], chosen: ChosenPlaces) -> Any:
    """Its own steps stay steps, so that their names, and what is refused, stay what they were."""
    made = make()
    if names_columns(made):
        return without(made, chosen.names, [name for place, name in enumerate(chosen.names) if place not in chosen.places])
    first = ("selected", ColumnTransformer([("kept", "passthrough", chosen.places)]))
    return Pipeline([first, *(made.steps if isinstance(made, Pipeline) else [("model", made)])])
