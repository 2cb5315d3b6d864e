"""What a run found out about its pipeline before it fitted it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from tidemill.declarations import Model
from tidemill.models.artifact import ModelInput
from tidemill.training.stages.search import with_parameters
from tidemill.training.stages.select import ChosenPlaces, with_chosen


class ChosenPipeline(msgspec.Struct, frozen=True):
    """`inputs`: the chosen ones (none: all of them); `parameters`: the best of a search."""

    inputs: list[str] = []
    parameters: dict[str, Any] = {}


def as_chosen(model: Model, inputs: Sequence[ModelInput], chosen: ChosenPipeline) -> Model:
    """The model with the pipeline that is fitted. `inputs`: of the training set."""
    if chosen.inputs:
        places = [i for i, spec in enumerate(inputs) if spec.name in chosen.inputs]
        model = replace(model, pipeline=with_chosen(model.pipeline, ChosenPlaces(places, [spec.name for spec in inputs])))
    if chosen.parameters:
        model = replace(model, pipeline=with_parameters(model.pipeline, chosen.parameters))
    return model
