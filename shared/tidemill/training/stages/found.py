"""What a run found out about its pipeline before it fitted it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from tidemill.declarations import Model
from tidemill.models.artifact import ModelInput
from tidemill.training.stages.search import with_parameters
from tidemill.training.stages.select import with_chosen


class Found(msgspec.Struct, frozen=True):
    """`inputs`: the chosen ones (none: all of them); `parameters`: the best of a search."""

    inputs: list[str] = []
    parameters: dict[str, Any] = {}


def with_found(model: Model, inputs: Sequence[ModelInput], found: Found) -> Model:
    """The model with the pipeline that is fitted. `inputs`: of the training set."""
    if found.inputs:
        places = [i for i, spec in enumerate(inputs) if spec.name in found.inputs]
        model = replace(model, pipeline=with_chosen(model.pipeline, places))
    if found.parameters:
        model = replace(model, pipeline=with_parameters(model.pipeline, found.parameters))
    return model
