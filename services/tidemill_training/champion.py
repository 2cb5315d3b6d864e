"""The champion on the rows that were held out: what it would have answered, and what it lost by it.

A row counts only if the champion was not fitted on it: those after the newest of its training. Its inputs are found by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tidemill.errors import ArtifactError
from tidemill.models.artifact import ModelInput, stored_artifact
from tidemill.models.engine import load_engine
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.proof.paired import measures
from tidemill.training.fitting import Fitted
from tidemill.training.stages.evaluation import ChampionBeside, Loss

MOST_ROWS, FEWEST_ROWS = 5_000, 50

Matrix = npt.NDArray[np.float32]


def beside(offline_root: str, model: str, version: str, fitted: Fitted) -> ChampionBeside:
    """The losses of a new version and of the champion on the same rows, or why they cannot be compared."""
    try:
        artifact = stored_artifact(offline_root, model, version)
    except ArtifactError as error:
        return ChampionBeside(version, 0, [], error.message)
    manifest, held = artifact.manifest, fitted.holdout
    there = {(spec.name, spec.is_content, tuple(spec.lengths)) for spec in held.inputs}
    missing = [item.name for item in manifest.inputs if (item.name, item.is_content, tuple(item.lengths)) not in there]
    if missing:
        return ChampionBeside(version, 0, [], f"the champion reads what the new version does not: {', '.join(missing)}")
    if manifest.output != fitted.output:
        return ChampionBeside(version, 0, [], f"the champion gives a {manifest.output}, the new version a {fitted.output}")
    if manifest.class_names != fitted.classes:
        return ChampionBeside(version, 0, [], f"the champion knows other classes: {', '.join(manifest.class_names)}")
    unseen = np.flatnonzero(held.times_ms > manifest.trained_until)
    if len(unseen) < FEWEST_ROWS:
        return ChampionBeside(
            version,
            len(unseen),
            [],
            f"the champion has not seen {len(unseen)} of the held-out rows, and {FEWEST_ROWS} are needed to compare",
        )
    places = unseen[:: max(1, len(unseen) // MOST_ROWS)][:MOST_ROWS]
    mine = {spec.name: spec for spec in held.inputs}
    engine = load_engine(artifact).pooled([mine[item.name] for item in manifest.inputs])
    answers = engine.each(by_name(held.matrix[places], held.inputs, manifest.inputs))
    new = fitted.holdout_output[places].astype(np.float64)
    found = measures(answers, new, held.labels[places], fitted.output)
    losses = [Loss(one.name, one.other, one.first, one.difference, one.low, one.high) for one in found]
    return ChampionBeside(version, len(places), losses)


def by_name(rows: Matrix, inputs: Sequence[ModelInput], wanted: Sequence[ModelInput]) -> Matrix:
    """Rows of one version as another gets them: its inputs in its order, its numbers of texts."""
    places = {spec.name: i for i, spec in enumerate(inputs)}
    columns = [_column(rows[:, places[item.name]], inputs[places[item.name]], item) for item in wanted]
    return np.stack(columns, axis=1).astype(np.float32)


def _column(numbers: Matrix, given: ModelInput, wanted: ModelInput) -> Matrix:
    if not wanted.is_category:
        return numbers
    known = {text: float(place) for place, text in enumerate(wanted.categories)}
    unknown = known.get(UNKNOWN_TEXT, math.nan)
    table = np.array([*(known.get(text, unknown) for text in given.categories), math.nan], np.float32)
    return table[np.where(np.isnan(numbers), len(given.categories), numbers).astype(np.int64)]
